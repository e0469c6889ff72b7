"""Why a user's AUC is measured with frozen histories too."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from data_pipelines.prepare import prepare
from data_pipelines.reading.batches import Batches
from data_pipelines.stores.request_columns import RequestColumns
from data_pipelines.stores.shard import SPLITS, Shard
from data_pipelines.stores.store import Store, write_store
from sparsectr.config import DataConfig
from sparsectr.metrics import auc, gauc
from sparsectr.schema import CategoricalField, DatasetSchema, Table
from tests.data_pipelines.make_store import CONFIG, make_store, slow_request

Array = npt.NDArray[Any]

NOT_CLICKED, CLICKED = 2, 3
SCHEMA = DatasetSchema(
    name="made",
    tables=(Table(name="feedback", size=4), Table(name="item", size=3)),
    user_fields=(),
    behavior_fields=(CategoricalField(name="feedback", table="feedback"),),
    candidate_fields=(CategoricalField(name="item", table="item"),),
)
NUM_USERS, NUM_BEFORE, NUM_TESTED = 500, 4, 6
WHOLE = DataConfig(max_history=1024, length_buckets=(1024,))


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Users who each click at a rate of their own, whatever they have seen.

    Each exposure is a request, and a behavior at the next one.
    """
    generator = np.random.default_rng(0)
    rate = generator.uniform(0.1, 0.9, (NUM_USERS, 1))
    count = NUM_BEFORE + NUM_TESTED
    clicked = generator.random((NUM_USERS, count)) < rate
    number = np.arange(NUM_USERS * count).reshape(NUM_USERS, count)
    user = np.repeat(np.arange(NUM_USERS), count).reshape(NUM_USERS, count)

    def requests(of: slice) -> RequestColumns:
        label = clicked[:, of].ravel()
        return RequestColumns(
            user=user[:, of].ravel().astype(np.int32),
            users={},
            time=(1_000 + number[:, of]).ravel().astype(np.uint32),
            history_end=number[:, of].ravel(),
            candidate_offset=np.arange(label.size + 1),
            candidates={"item": np.full(label.size, 2, np.uint8)},
            label=label.astype(np.uint8),
        )

    shard = Shard(
        user_id=np.arange(NUM_USERS),
        behavior_offset=np.arange(NUM_USERS + 1) * count,
        behavior_time=(1_000 + number).ravel().astype(np.uint32),
        behaviors={
            "feedback": np.where(clicked, CLICKED, NOT_CLICKED)
            .ravel()
            .astype(np.uint8)
        },
        splits={
            "train": requests(slice(0, NUM_BEFORE)),
            "test": requests(slice(NUM_BEFORE, None)),
        },
    )
    path = tmp_path_factory.mktemp("growing") / "store"
    write_store(
        path, schema=SCHEMA, vocabularies=(), shards=[shard], details={}
    )
    return Store(path)


def _click_rate_so_far(
    store: Store, is_click: Array, *, frozen_history: bool
) -> tuple[float, float]:
    """Returns AUC and GAUC of the click rate that the history shows.

    Args:
        store: Its behaviors have the field `feedback`.
        is_click: bool, by the id of a feedback.
        frozen_history: See `Batches`.
    """
    batches = Batches(
        store, "test", WHOLE, 512, None, frozen_history=frozen_history
    )
    parts = []
    for step in range(batches.num_batches):
        batch = batches.batch(step)
        known = batches.labels(step, batch["label"].shape[1])
        rows = len(known.mask)
        seen = (batch["behavior_time"][:rows] > 0).sum(axis=1)
        clicks = is_click[batch["behavior_feedback"][:rows]].sum(axis=1)
        # A little of the mean of all, for who has seen little.
        rate = (clicks + 20 * 0.44) / (seen + 20)
        scores = np.repeat(rate, known.mask.sum(axis=1))
        parts.append((known.label, scores, known.user))
    label, score, user = map(np.concatenate, zip(*parts, strict=True))
    return auc(label, score), gauc(label, score, user).value


def test_clicks_that_were_seen_leave_fewer_to_come(growing: Store) -> None:
    is_click = np.arange(4) == CLICKED
    overall, per_user = _click_rate_so_far(
        growing, is_click, frozen_history=False
    )
    # Right about users, and within a user there is nothing to be right about:
    # 0.5 it should be.
    assert overall > 0.65
    assert per_user < 0.3
    overall, per_user = _click_rate_so_far(
        growing, is_click, frozen_history=True
    )
    assert overall > 0.65
    assert per_user == 0.5


def test_the_same_on_kuairand(shared_data: Path, tmp_path: Path) -> None:
    store = prepare("kuairand", shared_data / "kuairand_pure", tmp_path / "s")
    feedback = store.vocabulary("feedback").values
    assert feedback is not None
    is_click = np.array([0, 0, *feedback.to_pylist()]) & 1 == 1
    live = _click_rate_so_far(store, is_click, frozen_history=False)
    assert live == pytest.approx((0.6434, 0.1342), abs=5e-4)
    frozen = _click_rate_so_far(store, is_click, frozen_history=True)
    assert frozen == pytest.approx((0.6201, 0.5), abs=5e-4)


@pytest.mark.parametrize("split", SPLITS)
def test_every_request_has_the_history_of_the_users_first(
    tmp_path: Path, split: str
) -> None:
    store = make_store(tmp_path / "store")
    batches = Batches(store, split, CONFIG, 4, None, frozen_history=True)
    first: dict[int, Any] = {}
    for number in range(store.num_requests(split)):
        request = slow_request(store, split, number, CONFIG.max_history)
        first.setdefault(request["raw_user"], request)
    num_frozen = 0
    for step in range(batches.num_batches):
        batch = batches.batch(step)
        numbers, length = batches.requests(step)
        assert batch["behavior_time"].shape[1] == length
        for row, number in enumerate(numbers.tolist()):
            own = slow_request(store, split, number, CONFIG.max_history)
            frozen = first[own["raw_user"]]
            num_frozen += frozen["behavior_time"] != own["behavior_time"]
            assert batch["request_time"][row] == own["request_time"]
            for name in ("behavior_time", "behavior_serial", "behavior_shop"):
                padding = [0] * (length - len(frozen[name]))
                assert batch[name][row].tolist() == padding + frozen[name]
    assert num_frozen > 0
