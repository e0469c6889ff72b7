"""Every layer keeps the contract of `tests.layer_contract`.

EvoAttention, FullAttention and SparseBlock do their work in several methods,
which share weights. For them a subclass's `call` goes through all of them,
behaviours and candidates, so that every weight is read.
"""

import dataclasses
import inspect
import pathlib
from typing import Any

import keras
import numpy as np
import pytest

from sparsectr.layers.attention.attention import Attention
from sparsectr.layers.attention.block_compression import BlockCompression
from sparsectr.layers.attention.branch_gate import BranchGate
from sparsectr.layers.attention.dilated_attention import DilatedAttention
from sparsectr.layers.attention.evo_attention import EvoAttention
from sparsectr.layers.attention.full_attention import FullAttention
from sparsectr.layers.attention.linformer_attention import LinformerAttention
from sparsectr.layers.attention.native_sparse_attention import (
    NativeSparseAttention,
)
from sparsectr.layers.attention.output_gate import OutputGate
from sparsectr.layers.attention.semi_local_attention import SemiLocalAttention
from sparsectr.layers.attention.sequence_projection import SequenceProjection
from sparsectr.layers.chunking.chunking import Chunking, Chunks
from sparsectr.layers.chunking.fixed_chunking import FixedChunking
from sparsectr.layers.chunking.similarity_chunking import SimilarityChunking
from sparsectr.layers.chunking.time_chunking import TimeChunking
from sparsectr.layers.dropout import Dropout
from sparsectr.layers.encoding.alibi import ALiBi
from sparsectr.layers.encoding.hstu_bias import HSTUBias
from sparsectr.layers.encoding.no_encoding import NoEncoding
from sparsectr.layers.encoding.rel_temporal import RelTemporal
from sparsectr.layers.encoding.rope import RoPE
from sparsectr.layers.encoding.t5_bias import T5Bias
from sparsectr.layers.encoding.t_rope import TRoPE
from sparsectr.layers.inputs.embedding_table import EmbeddingTable
from sparsectr.layers.inputs.gap_embedding import GapEmbedding
from sparsectr.layers.inputs.request_embedding import RequestEmbedding
from sparsectr.layers.pre_norm_block import PreNormBlock
from sparsectr.layers.prediction.dice import Dice
from sparsectr.layers.prediction.mlp_head import MLPHead
from sparsectr.layers.prediction.prediction_layer import PredictionLayer
from sparsectr.layers.retrieval.compressed_fields import CompressedFields
from sparsectr.layers.retrieval.consistent_attention import (
    ConsistentAttention,
)
from sparsectr.layers.retrieval.gap_buckets import GapBuckets
from sparsectr.layers.retrieval.random_codes import RandomCodes
from sparsectr.layers.retrieval.target_attention import TargetAttention
from sparsectr.layers.serialization import serialized
from sparsectr.layers.sink.boundary_sinks import BoundarySinks
from sparsectr.layers.sink.key_value_sink import KeyValueSink
from sparsectr.layers.sink.learned_sink import LearnedSink
from sparsectr.layers.sink.no_sink import NoSink
from sparsectr.layers.sink.off_by_one_sink import OffByOneSink
from sparsectr.layers.sink.sink import Sink
from sparsectr.layers.sparse_block import SparseBlock
from sparsectr.layers.swiglu import SwiGLU
from sparsectr.layers.training_fields import TrainingFields
from sparsectr.layers.transformer_block import TransformerBlock
from sparsectr.layers.unified_attention_block import UnifiedAttentionBlock
from sparsectr.ops.causal_blocks import causal_blocks
from sparsectr.ops.places import (
    Places,
    places_of_history,
    places_of_request,
)
from sparsectr.time_zone import TimeZone
from tests.layer_contract import check_layer
from tests.make_requests import (
    LOGGED_SCHEMA,
    SCHEMA,
    TIMED_SCHEMA,
    make_requests,
)

BATCH, LENGTH, CANDIDATES, WIDTH, HEADS = 3, 13, 5, 14, 7
CHUNKS, TRANSITION, LOCAL = 4, 2, 3
ZONE = dataclasses.asdict(TimeZone.named("Europe/Copenhagen"))
REQUESTS = make_requests(0, [13, 0, 3], length=LENGTH)


def _normal(*shape: int) -> np.ndarray:
    random = np.random.default_rng(sum(shape))
    return random.normal(size=shape).astype("float32")


ENCODING = serialized(RelTemporal(HEADS, ZONE, name="encoding"))
CHUNKING = serialized(TimeChunking(CHUNKS, TRANSITION, name="chunking"))
SINK = serialized(NoSink(name="sink"))
GATE = serialized(OutputGate(HEADS, name="output_gate"))
del GATE["config"]["dtype"]  # that of the attention, which a check changes
ATTENTIONS = {
    "evo": {
        "num_heads": HEADS,
        "num_local": LOCAL,
        "chunking": CHUNKING,
        "encoding": ENCODING,
        "sink": SINK,
        "has_user": False,
        "output_gate": GATE,
        "num_registers": 2,
        "boundary_sinks": serialized(BoundarySinks(name="boundary_sinks")),
        "branches": ["global", "transition", "local"],
        "num_newest": LOCAL + 2,
    },
    "full": {
        "num_heads": HEADS,
        "encoding": ENCODING,
        "sink": SINK,
        "num_query_blocks": 2,
        "output_gate": GATE,
    },
}
SPARSE_ATTENTIONS = {
    DilatedAttention: {"num_keys": 3, "stride": 5, "num_local_heads": 2},
    SemiLocalAttention: {
        "num_first": 2,
        "num_recent": 5,
        "candidates": "budget",
    },
    LinformerAttention: {
        "num_keys": 3,
        "longest_history": 11,
        "encoding": serialized(NoEncoding(name="encoding")),
    },
    NativeSparseAttention: {
        "sizes": (4, 2, 2),
        "num_selected": 2,
        "num_forced": 1,
        "num_window": 3,
        "longest_history": 17,
    },
}


def _pass(
    attention: Attention, encode: Any, behavior_time: Any, request_time: Any
) -> Any:
    """Plans and encodes; returns rows, and what candidates are called with."""
    history = places_of_history(behavior_time)
    plan = attention.plan(history, behavior_time, for_history=True)
    rows, encoded = encode(plan)
    request = places_of_request(request_time)
    features = attention.relate(request, plan.keys, plan.key_mask.shape[1])
    return rows, (*encoded, features, plan.key_mask, request)


class _WholeAttention:
    """Selects keys, then lets behaviours and candidates read them."""

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
        def encode(plan: Any) -> Any:
            encoded = self.encode(behaviors, user, plan)
            return self.read_history(behaviors, encoded, plan), encoded

        rows, given = _pass(self, encode, behavior_time, request_time)
        return rows, super().call(candidates, *given)

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
    pass


@keras.saving.register_keras_serializable("contract_test")
class WholeFullAttention(_WholeAttention, FullAttention):
    pass


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
        def encode(plan: Any) -> Any:
            block = super(_WholeAttention, self)
            return block.encode(behaviors, user, plan, is_last=False)

        rows, given = _pass(self.attention, encode, behavior_time, request_time)
        return rows, super(_WholeAttention, self).call(candidates, *given)


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
        ATTENTIONS["evo"],
        WHOLE_INPUTS,
        expected_output_shape=WHOLE_SHAPE,
    )


def test_full_attention() -> None:
    check_layer(
        WholeFullAttention,
        ATTENTIONS["full"],
        WHOLE_INPUTS,
        expected_output_shape=WHOLE_SHAPE,
    )


@pytest.mark.parametrize(
    "sink",
    [
        OffByOneSink(name="sink"),
        LearnedSink([0.1 * h for h in range(HEADS)], name="sink"),
        KeyValueSink(name="sink"),
    ],
    ids=lambda sink: type(sink).__name__,
)
@pytest.mark.parametrize(
    "attention",
    [
        pytest.param(WholeEvoAttention, marks=pytest.mark.slow),
        WholeFullAttention,
    ],
)
def test_attention_with_a_sink(attention: type[Attention], sink: Sink) -> None:
    kind = "evo" if attention is WholeEvoAttention else "full"
    check_layer(
        attention,
        {**ATTENTIONS[kind], "sink": serialized(sink)},
        WHOLE_INPUTS,
        expected_output_shape=WHOLE_SHAPE,
    )


def _check_sparse_attention(attention: type[Attention]) -> None:
    whole = keras.saving.register_keras_serializable("contract_test")(
        type(f"Whole{attention.__name__}", (_WholeAttention, attention), {})
    )
    shared = {"num_heads": HEADS, "encoding": ENCODING, "sink": SINK}
    check_layer(
        whole,
        {**shared, **SPARSE_ATTENTIONS[attention]},
        WHOLE_INPUTS,
        expected_output_shape=WHOLE_SHAPE,
    )


def test_dilated_attention() -> None:
    _check_sparse_attention(DilatedAttention)


def test_semi_local_attention() -> None:
    _check_sparse_attention(SemiLocalAttention)


def test_linformer_attention() -> None:
    _check_sparse_attention(LinformerAttention)


def test_native_sparse_attention() -> None:
    _check_sparse_attention(NativeSparseAttention)


@pytest.mark.parametrize("stride", [2, 5])
def test_block_compression(stride: int) -> None:
    check_layer(
        BlockCompression,
        {"num_blocks": 3, "block_size": 5, "block_stride": stride},
        (_normal(BATCH, 11, WIDTH), _normal(BATCH, 11) > 0.0),
        expected_output_shape=(BATCH, 3, WIDTH),
    )


@pytest.mark.parametrize("longest_history", [7, 17])
def test_sequence_projection(longest_history: int) -> None:
    check_layer(
        SequenceProjection,
        {"num_sums": 3, "longest_history": longest_history},
        (_normal(BATCH, 11, WIDTH), _normal(BATCH, 11) > 0.0),
        expected_output_shape=(BATCH, 3, WIDTH),
    )


@pytest.mark.parametrize("attention", [EvoAttention, FullAttention])
def test_sparse_block(attention: type[Attention]) -> None:
    kind = "evo" if attention is EvoAttention else "full"
    given = serialized(attention(**ATTENTIONS[kind], name="attention"))
    # That of the block, which a check changes.
    del given["config"]["dtype"]
    check_layer(
        WholeSparseBlock,
        {"attention": given, "feed_forward_multiplier": 2},
        WHOLE_INPUTS,
        expected_output_shape=WHOLE_SHAPE,
    )


def _check_chunking(
    chunking: type[Chunking], *rows: np.ndarray, **arguments: Any
) -> None:
    chunks, transition = (BATCH, CHUNKS), (BATCH, TRANSITION * CHUNKS)
    sizes = {"num_chunks": CHUNKS, "num_transition": TRANSITION}
    check_layer(
        chunking,
        sizes | arguments,
        (places_of_history(REQUESTS["behavior_time"]), *rows),
        expected_output_shape=Chunks(
            start=chunks,
            end=chunks,
            weights=(BATCH, CHUNKS, LENGTH),
            place=Places(*[chunks] * 4),
            transition_index=transition,
            transition_place=Places(*[transition] * 4),
        ),
        expects_gradients=False,
        pinned_float32=True,
    )


def test_time_chunking() -> None:
    _check_chunking(TimeChunking)


def test_fixed_chunking() -> None:
    _check_chunking(FixedChunking, chunk_size=3)


def test_similarity_chunking() -> None:
    _check_chunking(SimilarityChunking, _normal(BATCH, LENGTH, WIDTH))


def test_rel_temporal() -> None:
    check_layer(
        RelTemporal,
        {"num_heads": HEADS, "time_zone": ZONE, "biases": ["time", "weekend"]},
        tuple(np.abs(_normal(2, 3, keys)) for keys in (5, 5, 5)),
        expected_output_shape=(2, 3, HEADS, 5),
        pinned_float32=True,
    )


def test_hstu_bias() -> None:
    random = np.random.default_rng(0)
    check_layer(
        HSTUBias,
        {"num_positions": 7},
        (
            random.integers(7, size=(2, 3, 5)).astype("int32"),
            random.integers(129, size=(2, 3, 5)).astype("int32"),
        ),
        expected_output_shape=(2, 3, 1, 5),
        pinned_float32=True,
    )


def test_t5_bias() -> None:
    random = np.random.default_rng(0)
    check_layer(
        T5Bias,
        {"num_heads": HEADS},
        random.integers(33, size=(2, 3, 5)).astype("int32"),
        expected_output_shape=(2, 3, HEADS, 5),
        pinned_float32=True,
    )


def test_alibi() -> None:
    check_layer(
        ALiBi,
        {"num_heads": HEADS},
        np.abs(_normal(2, 3, 5)),
        expected_output_shape=(2, 3, HEADS, 5),
        expects_gradients=False,
        pinned_float32=True,
    )


@keras.saving.register_keras_serializable("contract_test")
class WholeTRoPE(TRoPE):
    """Turns rows as queries, and what comes of it as keys."""

    def call(self, rows: Any, time: Any, position: Any) -> Any:
        for is_query in (True, False):
            rows = super().call(rows, time, position, is_query=is_query)
        return rows


TURNED = (
    _normal(BATCH, LENGTH, WIDTH * 2),
    REQUESTS["behavior_time"],
    np.arange(LENGTH, dtype="int32")[np.newaxis],
)


def test_rope() -> None:
    check_layer(
        RoPE,
        {"num_heads": HEADS},
        TURNED,
        expected_output_shape=(BATCH, LENGTH, WIDTH * 2),
        expects_gradients=False,
        pinned_float32=True,
    )


@pytest.mark.parametrize("is_relative", [True, False])
def test_t_rope(is_relative: bool) -> None:
    check_layer(
        WholeTRoPE,
        {"width": WIDTH * 2, "num_heads": HEADS, "is_relative": is_relative},
        TURNED,
        expected_output_shape=(BATCH, LENGTH, WIDTH * 2),
        pinned_float32=True,
    )


def test_no_encoding() -> None:
    layer = NoEncoding.from_config(NoEncoding(name="none").get_config())
    layer.build()
    places = places_of_history(REQUESTS["behavior_time"])
    assert layer.bias(layer.relate(places, places, 1)) is None
    assert layer.weights == []


def test_no_sink() -> None:
    layer = NoSink.from_config(NoSink(name="none").get_config())
    layer.build()
    mask = np.array([[True, True], [False, False]])
    weights, total = layer.numerators(np.zeros((2, 2), "float32"), mask, 0)
    np.testing.assert_array_equal(weights / total, [[0.5, 0.5], [0.0, 0.0]])
    assert layer.weights == []


@keras.saving.register_keras_serializable("contract_test")
class WholePreNormBlock(PreNormBlock):
    """Makes its keys and values too, so that all weights are read."""

    def build(
        self,
        rows_shape: Any,
        others_shape: Any = None,
        key_mask_shape: Any = None,
    ) -> None:
        super().build(rows_shape)

    def call(
        self, rows: Any, others: Any, key_mask: Any, reads_itself: bool = False
    ) -> Any:
        keys, values = self.encode(others)
        return super().call(rows, keys, values, key_mask, reads_itself)

    def compute_output_shape(
        self, rows_shape: Any, others_shape: Any, key_mask_shape: Any
    ) -> Any:
        return rows_shape


@pytest.mark.parametrize("reads_itself", [False, True])
def test_pre_norm_block(reads_itself: bool) -> None:
    check_layer(
        WholePreNormBlock,
        {"num_heads": HEADS, "feed_forward_multiplier": 2},
        (
            _normal(BATCH, CANDIDATES, WIDTH),
            _normal(BATCH, LENGTH, WIDTH),
            _normal(BATCH, 1, LENGTH) > 0.0,
        ),
        call_kwargs={"reads_itself": reads_itself},
        expected_output_shape=(BATCH, CANDIDATES, WIDTH),
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
        {"num_heads": HEADS, "num_branches": 2},
        [_normal(2, 3, WIDTH), _normal(2, 3, WIDTH) + 1],
        expected_output_shape=(2, 3, WIDTH),
    )


@pytest.mark.parametrize("by_element", [True, False])
def test_output_gate(by_element: bool) -> None:
    check_layer(
        OutputGate,
        {"num_heads": HEADS, "by_element": by_element},
        (_normal(2, 3, WIDTH), _normal(2, 3, WIDTH) + 1),
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
        {"width": 13, "hidden_units": (7, 2), "activation": "leaky_relu"},
        inputs if has_user else inputs[:1],
        expected_output_shape=(2, 3),
        pinned_float32=True,
    )


@pytest.mark.parametrize("activation", ["leaky_relu", "dice"])
@pytest.mark.parametrize("is_shared", [True, False])
def test_mlp_head(is_shared: bool, activation: str) -> None:
    inputs = (_normal(2, 3, 5), _normal(2, 11))
    check_layer(
        MLPHead,
        {"hidden_units": (7, 2), "activation": activation},
        inputs if is_shared else inputs[:1],
        expected_output_shape=(2, 3),
        pinned_float32=True,
    )


def test_dropout() -> None:
    """As it scores; tests/layers/test_dropout.py is about training."""
    check_layer(
        Dropout,
        {"rate": 0.3, "noise_shape": None, "seed": 4},
        _normal(2, 3, 5),
        expected_output_shape=(2, 3, 5),
        expects_gradients=False,
    )


def test_dice() -> None:
    check_layer(
        Dice,
        {"momentum": 0.9, "epsilon": 1e-6},
        _normal(2, 3, 5),
        expected_output_shape=(2, 3, 5),
    )


def test_gap_embedding() -> None:
    check_layer(
        GapEmbedding,
        {"width": 5, "table_name": "retrieved"},
        (REQUESTS["behavior_time"], REQUESTS["request_time"]),
        expected_output_shape=(BATCH, LENGTH, 5),
    )


def test_gap_buckets() -> None:
    check_layer(
        GapBuckets,
        {"width": 5, "bounds": (1, 7), "table_name": "retrieved"},
        (REQUESTS["behavior_time"], REQUESTS["request_time"]),
        expected_output_shape=(BATCH, LENGTH, 5),
    )


def test_random_codes() -> None:
    check_layer(
        RandomCodes,
        {"num_bits": 7},
        _normal(2, 3, 5),
        expected_output_shape=(2, 3, 7),
        expects_gradients=False,
        pinned_float32=True,
    )


def test_compressed_fields() -> None:
    check_layer(
        CompressedFields,
        {"widths": (2, 3), "num_heads": HEADS},
        _normal(2, 3, 5),
        expected_output_shape=(2, HEADS, 3),
    )


def test_compressed_fields_are_some() -> None:
    with pytest.raises(ValueError, match="`widths` must be at least one num"):
        CompressedFields((), HEADS)


def test_consistent_attention() -> None:
    random = np.random.default_rng(0)
    check_layer(
        ConsistentAttention,
        {"num_heads": HEADS, "num_retrieved": 3},
        (
            _normal(BATCH, CANDIDATES, WIDTH),
            _normal(BATCH, 11, WIDTH),
            _normal(BATCH, HEADS, 11),
            _normal(BATCH, 11, 5),
            random.random((BATCH, 11)) < 0.7,
        ),
        expected_output_shape=(BATCH, CANDIDATES, WIDTH),
    )


@pytest.mark.parametrize("is_retrieved", [True, False])
def test_target_attention(is_retrieved: bool) -> None:
    random = np.random.default_rng(0)
    candidates, rows = _normal(BATCH, CANDIDATES, WIDTH), _normal(BATCH, 11, 5)
    inputs = (candidates, rows, random.random((BATCH, 11)) < 0.7)
    if is_retrieved:
        index = random.integers(0, 11, size=(BATCH, CANDIDATES, 3))
        found = random.random((BATCH, CANDIDATES, 3)) < 0.7
        inputs = (candidates, rows, found, index.astype("int32"))
    check_layer(
        TargetAttention,
        {"num_heads": HEADS},
        inputs,
        expected_output_shape=(BATCH, CANDIDATES, WIDTH),
    )


def test_attention_refuses_heads_that_do_not_fit() -> None:
    for layer in (TargetAttention(3), ConsistentAttention(3, 2)):
        with pytest.raises(ValueError, match="`num_heads` must divide the wid"):
            layer.build((None, None, 14), (None, None, 14))


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
            (BATCH, 4 * 17 + 1),
            (BATCH, LENGTH, WIDTH),
            (BATCH, CANDIDATES, WIDTH),
        ),
    )


def test_training_fields() -> None:
    logged = make_requests(0, [3, 1, 2], LOGGED_SCHEMA)
    check_layer(
        TrainingFields,
        {"schema": LOGGED_SCHEMA, "hidden_share": 0.0, "seed": 3},
        (
            _normal(BATCH, CANDIDATES),
            {
                name: logged[name]
                for name in ("candidate_position", "candidate_mask")
            },
        ),
        expected_output_shape=(BATCH, CANDIDATES),
        pinned_float32=True,
    )


@keras.saving.register_keras_serializable("contract_test")
class WholeRequestEmbedding(RequestEmbedding):
    """Adds to behaviours what is left for `score`."""

    def call(self, inputs: Any) -> Any:
        user, behaviors, candidates = super().call(inputs)
        if self.gap_to_request == "score":
            times = inputs["behavior_time"], inputs["request_time"]
            behaviors = behaviors + self.gaps_to_request(*times)
        return user, behaviors, candidates


@pytest.mark.parametrize("gap_to_request", ["encode_user", "score"])
def test_request_embedding_with_time_fields(gap_to_request: str) -> None:
    inputs = {k: v for k, v in REQUESTS.items() if k != "candidate_mask"}
    check_layer(
        WholeRequestEmbedding,
        {
            "schema": TIMED_SCHEMA,
            "embedding_dim": 17,
            "width": WIDTH,
            "gap_to_request": gap_to_request,
        },
        inputs,
        expected_output_shape=(
            (BATCH, 4 * 17 + 1),
            (BATCH, LENGTH, WIDTH),
            (BATCH, CANDIDATES, WIDTH),
        ),
    )


@keras.saving.register_keras_serializable("contract_test")
class WholeTransformerBlock(TransformerBlock):
    """Behaviours pass the block, then candidates."""

    def call(self, behaviors: Any, candidates: Any, behavior_time: Any) -> Any:
        history = places_of_history(behavior_time)
        queries = causal_blocks(history, lambda *_: ())
        rows, keys, values = self.encode(behaviors, queries, is_last=False)
        return rows, super().call(candidates, keys, values, history.valid)

    def compute_output_shape(
        self,
        behaviors_shape: Any,
        candidates_shape: Any,
        behavior_time_shape: Any,
    ) -> Any:
        return behaviors_shape, candidates_shape


def test_transformer_block() -> None:
    check_layer(
        WholeTransformerBlock,
        {
            "num_heads": HEADS,
            "feed_forward_multiplier": 2,
            "dropout_rate": 0.25,
        },
        (*WHOLE_INPUTS[:2], REQUESTS["behavior_time"]),
        expected_output_shape=WHOLE_SHAPE,
    )


@keras.saving.register_keras_serializable("contract_test")
class WholeUnifiedAttentionBlock(UnifiedAttentionBlock):
    """Behaviours pass the block, then candidates."""

    def call(
        self,
        behaviors: Any,
        candidates: Any,
        behavior_time: Any,
        request_time: Any,
        tokens: Any = None,
    ) -> Any:
        history = places_of_history(behavior_time)
        request = places_of_request(request_time)
        relate = self.encoding.relate
        rows, keys, values, user_side = self.encode(
            behaviors,
            history.valid,
            causal_blocks(history, relate),
            tokens,
            is_last=False,
        )
        return rows, super().call(
            candidates,
            keys,
            values,
            relate(request, history),
            relate(request, request),
            history.valid,
            user_side,
        )

    def compute_output_shape(
        self,
        behaviors_shape: Any,
        candidates_shape: Any,
        behavior_time_shape: Any,
        request_time_shape: Any,
        tokens_shape: Any = None,
    ) -> Any:
        return behaviors_shape, candidates_shape


@pytest.mark.parametrize("token_width", [5, None])
def test_unified_attention_block(token_width: int | None) -> None:
    inputs = (
        *WHOLE_INPUTS[:2],
        REQUESTS["behavior_time"],
        REQUESTS["request_time"],
    )
    if token_width:
        inputs += (_normal(BATCH, 2, token_width),)
    check_layer(
        WholeUnifiedAttentionBlock,
        {
            "num_heads": HEADS,
            "num_positions": 11,
            "token_width": token_width,
            "feed_forward_multiplier": 2,
            "dropout_rate": 0.25,
        },
        inputs,
        expected_output_shape=WHOLE_SHAPE,
    )


def test_every_layer_has_its_contract_tested(repository: pathlib.Path) -> None:
    files = (repository / "sparsectr" / "layers").glob("**/[a-z]*.py")
    interfaces = {
        "attention",
        "chunking",
        "encoding",
        "evo_plan",
        "key_layout",
        "rotary",
        "serialization",
        "sink",
    }
    of_attention = {
        f"{name}_sink" for name in ("off_by_one", "learned", "key_value")
    } | {"boundary_sinks"}  # test_attention_with_a_sink, test_evo_attention
    tested = {
        name.removeprefix("test_")
        for name, value in globals().items()
        if name.startswith("test_") and inspect.isfunction(value)
    }
    missing = {file.stem for file in files} - tested - interfaces
    missing -= of_attention
    assert not missing
