"""Training finds what was planted."""

import numpy as np
import pytest

from configs.models.sparse_ctr import SparseCTRRecipe
from data_pipelines.stores.request_columns import RequestColumns
from data_pipelines.stores.shard import SPLITS, Shard
from data_pipelines.stores.store import Store, write_store
from sparsectr.config import Config, DataConfig, TrainConfig
from sparsectr.schema import CategoricalField, DatasetSchema, Table
from tests.tiny_run import make_trainer

NUM_USERS, LENGTH, NUM_KINDS = 400, 6, 4
SCHEMA = DatasetSchema(
    name="planted",
    tables=(Table(name="kind", kind="hashed", size=2 + NUM_KINDS),),
    user_fields=(),
    behavior_fields=(CategoricalField(name="kind", table="kind"),),
    candidate_fields=(CategoricalField(name="kind", table="kind"),),
)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A candidate is clicked if it is of the kind of the last behavior.

    Neither the candidate nor the history alone says anything.
    """
    random = np.random.default_rng(11)
    kinds = random.integers(2, 2 + NUM_KINDS, (NUM_USERS, LENGTH))
    time = 1_500_000_000 + np.sort(
        random.integers(0, 10**6, (NUM_USERS, LENGTH)), axis=1
    )
    offset = LENGTH * np.arange(NUM_USERS + 1)

    def requests():
        offered = np.stack(
            [2 + random.permutation(NUM_KINDS) for _ in range(NUM_USERS)]
        )
        return RequestColumns(
            user=np.arange(NUM_USERS, dtype=np.int32),
            users={},
            time=np.full(NUM_USERS, 1_501_000_001, np.uint32),
            history_end=offset[1:],
            candidate_offset=NUM_KINDS * np.arange(NUM_USERS + 1),
            candidates={"kind": offered.ravel().astype(np.uint8)},
            label=(offered == kinds[:, -1:]).ravel().astype(np.uint8),
        )

    shard = Shard(
        user_id=np.arange(NUM_USERS),
        behavior_offset=offset,
        behavior_time=time.ravel().astype(np.uint32),
        behaviors={"kind": kinds.ravel().astype(np.uint8)},
        splits={split: requests() for split in SPLITS},
    )
    path = tmp_path_factory.mktemp("planted") / "store"
    write_store(
        path, schema=SCHEMA, vocabularies=(), shards=[shard], details={}
    )
    return Store(path)


def test_sparse_ctr_finds_the_last_behavior(planted, tmp_path):
    config = Config(
        dataset="alibaba",  # any: the store is given
        model=SparseCTRRecipe(
            width=16,
            embedding_dim=8,
            num_blocks=1,
            num_heads=2,
            num_chunks=2,
            num_transition=1,
            num_local=1,
        ),
        data=DataConfig(max_history=LENGTH),
        train=TrainConfig(
            batch_size=50, epochs=30, learning_rate=0.01, jit_compile=False
        ),
    )
    trainer = make_trainer(config, planted, tmp_path / "run")
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert before.num_candidates == after.num_candidates == 1600
    assert before.auc < 0.7
    assert after.auc > 0.9
    assert after.logloss < before.logloss
    assert after.calibration == pytest.approx(1.0, abs=0.1)
