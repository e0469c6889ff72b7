"""The attention layers and the block against the reference, alone."""

from typing import Any

import numpy as np
import pytest

from sparsectr.config import ModelConfig
from sparsectr.layers.attention.evo_attention import (
    EvoAttention,
    candidate_features,
    plan_evo_attention,
)
from sparsectr.layers.attention.full_attention import (
    FullAttention,
    plan_full_attention,
    query_block_bounds,
)
from sparsectr.layers.chunking.time_chunking import TimeChunking
from sparsectr.layers.sparse_block import SparseBlock
from tests import reference
from tests.keras_weights import attention_weights, block_weights, randomize
from tests.make_requests import make_requests

NUM_VALID = [29, 0, 1, 2, 6, 13, 28]
LENGTH, CANDIDATES, OFFSET = 29, 5, 8
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}

settings = pytest.mark.parametrize(
    ("has_user", "temporal_bias"), [(True, True), (False, True), (True, False)]
)


def _config(attention: str, temporal_bias: bool) -> ModelConfig:
    return ModelConfig(
        width=33,
        num_heads=3,
        num_chunks=7,
        num_transition=2,
        num_local=11,
        attention=attention,
        temporal_bias=temporal_bias,
    )


def _rows(width: int, length: int = LENGTH) -> tuple[np.ndarray, ...]:
    """Returns random rows of behaviours, candidates and users."""
    random = np.random.default_rng(1)
    shapes = (
        (len(NUM_VALID), length, width),
        (len(NUM_VALID), CANDIDATES, width),
        (len(NUM_VALID), width),
    )
    return tuple(random.normal(size=s).astype("float32") for s in shapes)


def _plan(config: ModelConfig, behavior_time: Any, has_user: bool) -> Any:
    if config.attention == "full":
        return plan_full_attention(
            behavior_time, utc_offset_hours=OFFSET, for_history=True
        )
    chunking = TimeChunking(config.num_chunks, config.num_transition)
    return plan_evo_attention(
        behavior_time,
        chunking(behavior_time),
        num_local=config.num_local,
        has_user=has_user,
        utc_offset_hours=OFFSET,
        for_history=True,
    )


def _features(plan: Any, request_time: Any) -> Any:
    return candidate_features(
        request_time, plan.key_time, plan.key_mask.shape[1], OFFSET
    )


def _expected(
    function: Any,
    weights: dict,
    rows: tuple[np.ndarray, ...],
    has_user: bool,
    requests: dict,
    config: ModelConfig,
) -> np.ndarray:
    """Returns the reference's rows of behaviours, then candidates."""
    behaviors, candidates, users = (x.astype("float64") for x in rows)
    sequence = np.concatenate([behaviors, candidates], axis=1)
    return np.stack(
        [
            function(
                weights,
                sequence[b],
                users[b] if has_user else None,
                requests["behavior_time"][b],
                requests["request_time"][b],
                config,
                OFFSET,
            )
            for b in range(len(sequence))
        ]
    )


def _compare(
    history: Any, candidates: Any, expected: np.ndarray, times: np.ndarray
) -> None:
    length = times.shape[1]
    valid = times > 0  # rows of padding mean nothing
    np.testing.assert_allclose(
        history.numpy()[valid], expected[:, :length][valid], **TOLERANCE
    )
    np.testing.assert_allclose(candidates, expected[:, length:], **TOLERANCE)


@settings
@pytest.mark.parametrize(
    ("attention", "length"),
    # Full attention of more behaviours than one block of queries holds.
    [("evo", LENGTH), ("full", LENGTH), ("full", 139)],
)
def test_block_equals_the_reference(
    attention: str, length: int, has_user: bool, temporal_bias: bool
) -> None:
    config = _config(attention, temporal_bias)
    block = SparseBlock(
        config.num_heads,
        config.num_chunks,
        config.num_transition,
        attention,
        temporal_bias,
    )
    block.build((None, None, config.width))
    randomize(block, 2)
    behaviors, candidates, users = rows = _rows(config.width, length)
    requests = make_requests(3, NUM_VALID, length=length)
    plan = _plan(config, requests["behavior_time"], has_user)
    history, keys, values = block.encode(behaviors, users, plan, is_last=False)
    features = _features(plan, requests["request_time"])
    outputs = block(candidates, keys, values, features, plan.key_mask)
    expected = _expected(
        reference.sparse_block,
        block_weights(block),
        rows,
        has_user,
        requests,
        config,
    )
    _compare(history, outputs, expected, requests["behavior_time"])


@settings
def test_evo_attention_equals_the_reference(
    has_user: bool, temporal_bias: bool
) -> None:
    config = _config("evo", temporal_bias)
    layer = EvoAttention(
        config.num_heads,
        config.num_chunks,
        config.num_transition,
        temporal_bias,
    )
    layer.build((None, None, config.width))
    randomize(layer, 4)
    behaviors, candidates, users = rows = _rows(config.width)
    requests = make_requests(5, NUM_VALID, length=LENGTH)
    plan = _plan(config, requests["behavior_time"], has_user)
    keys, values = layer.select(behaviors, users, plan)
    outputs = layer(
        candidates,
        keys,
        values,
        _features(plan, requests["request_time"]),
        plan.key_mask,
    )
    expected = _expected(
        reference.evo_attention,
        attention_weights(layer),
        rows,
        has_user,
        requests,
        config,
    )
    history = layer.attend_history(behaviors, keys, values, plan)
    _compare(history, outputs, expected, requests["behavior_time"])
    if not has_user:
        # An empty history without a user: nothing to read at all.
        assert np.all(outputs[1] == 0)


def test_last_block_computes_no_behaviors() -> None:
    config = _config("evo", temporal_bias=True)
    block = SparseBlock(config.num_heads, config.num_chunks, 2)
    block.build((None, None, config.width))
    behaviors, _, users = _rows(config.width)
    times = make_requests(3, NUM_VALID, length=LENGTH)["behavior_time"]
    plan = _plan(config, times, has_user=True)
    rows, keys, values = block.encode(behaviors, users, plan, is_last=True)
    assert rows is None
    _, other_keys, other_values = block.encode(
        behaviors, users, plan, is_last=False
    )
    np.testing.assert_array_equal(keys, other_keys)
    np.testing.assert_array_equal(values, other_values)


def test_plan_for_candidates_alone_relates_no_behaviors() -> None:
    times = make_requests(3, NUM_VALID, length=LENGTH)["behavior_time"]
    plan = plan_evo_attention(
        times,
        TimeChunking(7, 2)(times),
        num_local=11,
        has_user=True,
        utc_offset_hours=OFFSET,
        for_history=False,
    )
    assert plan.history_features is None
    assert plan.window_features is None
    full = plan_full_attention(times, utc_offset_hours=8, for_history=False)
    assert full.query_blocks is None
    rows = np.zeros((len(NUM_VALID), LENGTH, 8), "float32")
    with pytest.raises(ValueError, match="for_history"):
        FullAttention(4).attend_history(rows, rows, rows, full)


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 1024, 1025, 100_000])
def test_blocks_of_queries(length: int) -> None:
    bounds = query_block_bounds(length)
    assert len(bounds) == max(1, min(16, -(-length // 64)))
    starts, ends = zip(*bounds, strict=True)
    assert starts == (0, *ends[:-1])
    assert ends[-1] == length


def test_later_keys_are_skipped() -> None:
    times = make_requests(3, NUM_VALID, length=139)["behavior_time"]
    plan = plan_full_attention(times, utc_offset_hours=8, for_history=True)
    shapes = [(64, 64), (64, 128), (11, 139)]
    assert [tuple(block.mask.shape[1:]) for block in plan.query_blocks] == (
        shapes
    )
    for block, shape in zip(plan.query_blocks, shapes, strict=True):
        assert all(tuple(f.shape[1:]) == shape for f in block.features)


@pytest.mark.parametrize("layer", [EvoAttention(4, 2, 1), FullAttention(4)])
def test_rejects_heads_that_do_not_divide(layer: Any) -> None:
    with pytest.raises(ValueError, match="`num_heads` must divide the width 6"):
        layer.build((None, None, 6))


def test_rejects_an_unknown_attention() -> None:
    with pytest.raises(ValueError, match='must be "evo" or "full"'):
        SparseBlock(2, 2, 2, attention="linear")
