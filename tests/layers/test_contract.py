"""Every layer keeps the contract of `tests.layer_contract`.

EvoAttention, FullAttention and SparseBlock do their work in several methods,
which share weights. For them a subclass's `call` goes through all of them,
behaviours and candidates, so that every weight is read.
"""

import inspect
import pathlib
from typing import Any

import keras
import numpy as np
import pytest

from sparsectr.layers.attention.branch_gate import BranchGate
from sparsectr.layers.attention.evo_attention import (
    EvoAttention,
    candidate_features,
    plan_evo_attention,
)
from sparsectr.layers.attention.full_attention import (
    FullAttention,
    plan_full_attention,
)
from sparsectr.layers.chunking.time_chunking import TimeChunking, TimeChunks
from sparsectr.layers.encoding.rel_temporal import RelTemporal
from sparsectr.layers.inputs.embedding_table import EmbeddingTable
from sparsectr.layers.inputs.request_embedding import RequestEmbedding
from sparsectr.layers.prediction_layer import PredictionLayer
from sparsectr.layers.sparse_block import SparseBlock
from sparsectr.layers.swiglu import SwiGLU
from tests.layer_contract import check_layer
from tests.make_requests import SCHEMA, make_requests

BATCH, LENGTH, CANDIDATES, WIDTH, HEADS = 3, 13, 5, 14, 7
CHUNKS, TRANSITION, LOCAL, OFFSET = 4, 2, 3, 8
REQUESTS = make_requests(0, [13, 0, 3], length=LENGTH)


def _normal(*shape: int) -> np.ndarray:
    random = np.random.default_rng(sum(shape))
    return random.normal(size=shape).astype("float32")


def _plan(attention: str, behavior_time: Any) -> Any:
    if attention == "full":
        return plan_full_attention(
            behavior_time, utc_offset_hours=OFFSET, for_history=True
        )
    return plan_evo_attention(
        behavior_time,
        TimeChunking(CHUNKS, TRANSITION)(behavior_time),
        num_local=LOCAL,
        has_user=True,
        utc_offset_hours=OFFSET,
        for_history=True,
    )


def _candidate_features(plan: Any, request_time: Any) -> Any:
    return candidate_features(
        request_time, plan.key_time, plan.key_mask.shape[1], OFFSET
    )


class _WholeAttention:
    """Selects keys, then lets behaviours and candidates read them."""

    kind: str

    def build(self, behaviors_shape: Any, **unused: Any) -> None:
        super().build(behaviors_shape)

    def call(
        self,
        behaviors: Any,
        candidates: Any,
        user: Any,
        behavior_time: Any,
        request_time: Any,
    ) -> Any:
        plan = _plan(self.kind, behavior_time)
        keys, values = self.select(behaviors, user, plan)
        features = _candidate_features(plan, request_time)
        return (
            self.attend_history(behaviors, keys, values, plan),
            super().call(candidates, keys, values, features, plan.key_mask),
        )

    def compute_output_shape(
        self,
        behaviors_shape: Any,
        candidates_shape: Any,
        user_shape: Any,
        behavior_time_shape: Any,
        request_time_shape: Any,
    ) -> Any:
        return behaviors_shape, candidates_shape


@keras.saving.register_keras_serializable("contract_test")
class WholeEvoAttention(_WholeAttention, EvoAttention):
    kind = "evo"


@keras.saving.register_keras_serializable("contract_test")
class WholeFullAttention(_WholeAttention, FullAttention):
    kind = "full"


@keras.saving.register_keras_serializable("contract_test")
class WholeSparseBlock(_WholeAttention, SparseBlock):
    def call(
        self,
        behaviors: Any,
        candidates: Any,
        user: Any,
        behavior_time: Any,
        request_time: Any,
    ) -> Any:
        plan = _plan(self.attention, behavior_time)
        rows, keys, values = self.encode(behaviors, user, plan, is_last=False)
        features = _candidate_features(plan, request_time)
        call = super(_WholeAttention, self).call
        return rows, call(candidates, keys, values, features, plan.key_mask)


WHOLE_INPUTS = (
    _normal(BATCH, LENGTH, WIDTH),
    _normal(BATCH, CANDIDATES, WIDTH),
    _normal(BATCH, WIDTH),
    REQUESTS["behavior_time"],
    REQUESTS["request_time"],
)
WHOLE_SHAPE = ((BATCH, LENGTH, WIDTH), (BATCH, CANDIDATES, WIDTH))


def test_evo_attention() -> None:
    check_layer(
        WholeEvoAttention,
        {
            "num_heads": HEADS,
            "num_chunks": CHUNKS,
            "num_transition": TRANSITION,
            "temporal_bias": False,
        },
        WHOLE_INPUTS,
        expected_output_shape=WHOLE_SHAPE,
    )


def test_full_attention() -> None:
    check_layer(
        WholeFullAttention,
        {"num_heads": HEADS, "temporal_bias": False},
        WHOLE_INPUTS,
        expected_output_shape=WHOLE_SHAPE,
    )


@pytest.mark.parametrize("attention", ["evo", "full"])
def test_sparse_block(attention: str) -> None:
    check_layer(
        WholeSparseBlock,
        {
            "num_heads": HEADS,
            "num_chunks": CHUNKS,
            "num_transition": TRANSITION,
            "attention": attention,
        },
        WHOLE_INPUTS,
        expected_output_shape=WHOLE_SHAPE,
    )


def test_time_chunking() -> None:
    rows = TRANSITION * CHUNKS
    check_layer(
        TimeChunking,
        {"num_chunks": CHUNKS, "num_transition": TRANSITION},
        REQUESTS["behavior_time"],
        expected_output_shape=TimeChunks(
            start=(BATCH, CHUNKS),
            end=(BATCH, CHUNKS),
            chunk_time=(BATCH, CHUNKS),
            chunk_weights=(BATCH, CHUNKS, LENGTH),
            transition_index=(BATCH, rows),
            transition_mask=(BATCH, rows),
            transition_time=(BATCH, rows),
        ),
        expects_gradients=False,
        pinned_float32=True,
    )


def test_rel_temporal() -> None:
    check_layer(
        RelTemporal,
        {"num_heads": HEADS},
        tuple(np.abs(_normal(2, 3, keys)) for keys in (5, 5, 5)),
        expected_output_shape=(2, 3, HEADS, 5),
        pinned_float32=True,
    )


def test_swiglu() -> None:
    check_layer(
        SwiGLU,
        {"hidden_width": 11},
        _normal(2, 3, 5),
        expected_output_shape=(2, 3, 5),
    )


def test_branch_gate() -> None:
    check_layer(
        BranchGate,
        {"num_heads": HEADS},
        [_normal(2, 3, WIDTH), _normal(2, 3, WIDTH) + 1, _normal(2, 3, WIDTH)],
        expected_output_shape=(2, 3, WIDTH),
    )


def test_embedding_table() -> None:
    check_layer(
        EmbeddingTable,
        {"num_rows": 11, "width": 5},
        np.array([[0, 1, 10], [11, -1, 3]], "int32"),
        expected_output_shape=(2, 3, 5),
    )


@pytest.mark.parametrize("has_user", [True, False])
def test_prediction_layer(has_user: bool) -> None:
    inputs = (_normal(2, 3, 5), _normal(2, 11))
    check_layer(
        PredictionLayer,
        {"width": 13, "hidden_units": 7},
        inputs if has_user else inputs[:1],
        expected_output_shape=(2, 3),
        pinned_float32=True,
    )


def test_request_embedding() -> None:
    inputs = {
        name: values
        for name, values in REQUESTS.items()
        if name not in ("behavior_time", "request_time", "candidate_mask")
    }
    check_layer(
        RequestEmbedding,
        {"schema": SCHEMA, "embedding_dim": 17, "width": WIDTH},
        inputs,
        expected_output_shape=(
            (BATCH, 3 * 17),
            (BATCH, LENGTH, WIDTH),
            (BATCH, CANDIDATES, WIDTH),
        ),
    )


def test_every_layer_has_its_contract_tested(repository: pathlib.Path) -> None:
    files = (repository / "sparsectr" / "layers").glob("[a-z]*.py")
    tested = {
        name.removeprefix("test_")
        for name, value in globals().items()
        if name.startswith("test_") and inspect.isfunction(value)
    }
    missing = {file.stem for file in files} - tested
    assert not missing
