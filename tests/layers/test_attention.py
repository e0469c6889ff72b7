"""The attention layers and the block against the reference, alone."""

from typing import Any

import numpy as np
import pytest

from configs.models.sparse_ctr import SparseCTRRecipe
from sparsectr.layers.attention.attention import Attention
from sparsectr.layers.attention.evo_attention import EvoAttention
from sparsectr.layers.attention.full_attention import FullAttention
from sparsectr.layers.chunking.time_chunking import TimeChunking
from sparsectr.layers.encoding.no_encoding import NoEncoding
from sparsectr.layers.encoding.rel_temporal import RelTemporal
from sparsectr.layers.sink.boundary_sinks import BoundarySinks
from sparsectr.layers.sparse_block import SparseBlock
from sparsectr.ops.places import places_of_history, places_of_request
from sparsectr.ops.query_blocks import query_block_bounds
from sparsectr.time_zone import TimeZone
from tests import reference
from tests.keras_weights import attention_weights, block_weights, randomize
from tests.make_requests import make_requests

NUM_VALID = [29, 0, 1, 2, 6, 13, 28]
LENGTH, CANDIDATES = 29, 5
ZONE = TimeZone.fixed(8 * 60)
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}

settings = pytest.mark.parametrize(
    ("has_user", "temporal_bias"), [(True, True), (False, True), (True, False)]
)


def _config(attention: str, temporal_bias: bool) -> SparseCTRRecipe:
    return SparseCTRRecipe(
        width=33,
        num_heads=3,
        num_chunks=7,
        num_transition=2,
        num_local=11,
        attention=attention,
        encoding="rel_temporal" if temporal_bias else "none",
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


def _attention(config: SparseCTRRecipe, has_user: bool) -> Attention:
    """Returns the attention of a recipe."""
    encoding: Any = NoEncoding()
    if config.encoding == "rel_temporal":
        encoding = RelTemporal(config.num_heads, ZONE)
    if config.attention == "full":
        return FullAttention(config.num_heads, encoding)
    chunking = TimeChunking(config.num_chunks, config.num_transition)
    return EvoAttention(
        config.num_heads,
        config.num_local,
        chunking,
        encoding,
        has_user=has_user,
    )


def _plan(attention: Attention, behavior_time: Any) -> Any:
    rows = np.zeros((*behavior_time.shape, 1), "float32")
    places = places_of_history(behavior_time)
    return attention.plan(places, rows, for_history=True)


def _features(attention: Attention, plan: Any, request: Any) -> Any:
    return attention.relate(request, plan.keys, plan.key_mask.shape[1])


def _expected(
    function: Any,
    weights: dict,
    rows: tuple[np.ndarray, ...],
    has_user: bool,
    requests: dict,
    config: SparseCTRRecipe,
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
                reference.zone_of(ZONE.name),
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
    block = SparseBlock(_attention(config, has_user))
    block.build((None, None, config.width))
    randomize(block, 2)
    behaviors, candidates, users = rows = _rows(config.width, length)
    requests = make_requests(3, NUM_VALID, length=length)
    plan = _plan(block.attention, requests["behavior_time"])
    history, encoded = block.encode(behaviors, users, plan, is_last=False)
    request = places_of_request(requests["request_time"])
    features = _features(block.attention, plan, request)
    outputs = block(candidates, *encoded, features, plan.key_mask, request)
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
    layer = _attention(config, has_user)
    layer.build((None, None, config.width))
    randomize(layer, 4)
    behaviors, candidates, users = rows = _rows(config.width)
    requests = make_requests(5, NUM_VALID, length=LENGTH)
    plan = _plan(layer, requests["behavior_time"])
    encoded = layer.encode(behaviors, users, plan)
    request = places_of_request(requests["request_time"])
    features = _features(layer, plan, request)
    outputs = layer(candidates, *encoded, features, plan.key_mask, request)
    expected = _expected(
        reference.evo_attention,
        attention_weights(layer),
        rows,
        has_user,
        requests,
        config,
    )
    history = layer.read_history(behaviors, encoded, plan)
    _compare(history, outputs, expected, requests["behavior_time"])
    if not has_user:
        # An empty history without a user: nothing to read at all.
        assert np.all(outputs[1] == 0)


def test_last_block_computes_no_behaviors() -> None:
    config = _config("evo", temporal_bias=True)
    block = SparseBlock(_attention(config, has_user=True))
    block.build((None, None, config.width))
    behaviors, _, users = _rows(config.width)
    times = make_requests(3, NUM_VALID, length=LENGTH)["behavior_time"]
    plan = _plan(block.attention, times)
    rows, encoded = block.encode(behaviors, users, plan, is_last=True)
    assert rows is None
    _, other = block.encode(behaviors, users, plan, is_last=False)
    np.testing.assert_array_equal(encoded.keys, other.keys)
    np.testing.assert_array_equal(encoded.values, other.values)


@pytest.mark.parametrize("attention", ["evo", "full"])
def test_plan_for_candidates_alone_relates_no_behaviors(attention: str) -> None:
    config = _config(attention, temporal_bias=True)
    layer = _attention(config, has_user=True)
    layer.build((None, None, config.width))
    rows, _, users = _rows(config.width)
    times = make_requests(3, NUM_VALID, length=LENGTH)["behavior_time"]
    plan: Any = layer.plan(places_of_history(times), rows, for_history=False)
    assert (plan.history if attention == "evo" else plan.query_blocks) is None
    encoded = layer.encode(rows, users, plan)
    with pytest.raises(ValueError, match="for_history"):
        layer.read_history(rows, encoded, plan)


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 1024, 1025, 100_000])
def test_blocks_of_queries(length: int) -> None:
    bounds = query_block_bounds(length)
    assert len(bounds) == max(1, min(16, -(-length // 64)))
    starts, ends = zip(*bounds, strict=True)
    assert starts == (0, *ends[:-1])
    assert ends[-1] == length


def test_later_keys_are_skipped() -> None:
    times = make_requests(3, NUM_VALID, length=139)["behavior_time"]
    layer = _attention(_config("full", temporal_bias=True), has_user=True)
    plan = _plan(layer, times)
    shapes = [(64, 64), (64, 128), (11, 139)]
    assert [tuple(block.mask.shape[1:]) for block in plan.query_blocks] == (
        shapes
    )
    for block, shape in zip(plan.query_blocks, shapes, strict=True):
        assert all(tuple(f.shape[1:]) == shape for f in block.features)


@pytest.mark.parametrize("attention", ["evo", "full"])
def test_rejects_heads_that_do_not_divide(attention: str) -> None:
    layer = _attention(_config(attention, temporal_bias=True), has_user=True)
    with pytest.raises(
        ValueError, match="`num_heads` must divide the width 10"
    ):
        layer.build((None, None, 10))


def test_rejects_an_empty_window() -> None:
    with pytest.raises(ValueError, match="`num_local` must be at least 1"):
        EvoAttention(2, 0, TimeChunking(2, 2), NoEncoding())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"branches": ("local",)}, "`branches` must be two or three"),
        (
            {"branches": ("global", "transition"), "num_registers": 1},
            "`num_registers` must be 0 without the local branch",
        ),
        (
            {
                "branches": ("global", "local"),
                "boundary_sinks": BoundarySinks(),
            },
            "`boundary_sinks` must be None without the transition",
        ),
    ],
)
def test_rejects_parts_of_branches_that_are_not_there(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        EvoAttention(2, 1, TimeChunking(2, 2), NoEncoding(), **given)


def test_rejects_fewer_registers_than_none() -> None:
    with pytest.raises(ValueError, match="`num_registers` must be at least 0"):
        EvoAttention(2, 1, TimeChunking(2, 2), NoEncoding(), num_registers=-1)


def test_registers_are_of_the_local_branch_alone() -> None:
    with pytest.raises(ValueError, match="`num_registers` must be 0"):
        SparseCTRRecipe(attention="full", num_registers=1)


def test_boundaries_are_those_of_chunks() -> None:
    with pytest.raises(ValueError, match="`boundary_sinks` must be false with"):
        SparseCTRRecipe(attention="full", boundary_sinks=True)
