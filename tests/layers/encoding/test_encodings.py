"""Every encoding and chunking in SparseCTR's attentions, by the reference."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from configs.models.sparse_ctr import ROTARY, SparseCTRRecipe
from sparsectr.layers.attention.attention import Attention
from sparsectr.layers.attention.full_attention import FullAttention
from sparsectr.layers.encoding.alibi import ALiBi
from sparsectr.layers.encoding.encoding import Features
from sparsectr.layers.encoding.rope import RoPE
from sparsectr.layers.encoding.t5_bias import T5Bias
from sparsectr.layers.encoding.t_rope import TRoPE
from sparsectr.models.sparse_ctr import SparseCTR
from sparsectr.ops.places import Places, places_of_history, places_of_request
from tests.keras_weights import attention_weights, randomize
from tests.make_requests import SCHEMA, make_requests
from tests.reference.chunkings import chunks_of
from tests.reference.encodings import bias_of, phase_of
from tests.reference.variants import Request, attention

NUM_VALID = [19, 0, 1, 2, 6, 13, 18]
LENGTH, CANDIDATES = 19, 5
CONFIG = SparseCTRRecipe(
    width=42,
    num_heads=3,
    num_chunks=7,
    num_transition=2,
    num_local=11,
    max_history=17,
)
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}

ENCODINGS = ("hstu", "t5", "alibi", *ROTARY, "none")

Rows = tuple[np.ndarray, ...]


def _layer(config: SparseCTRRecipe) -> Any:
    layer = SparseCTR(SCHEMA, config).blocks[0].attention
    layer.build((None, None, config.width))
    randomize(layer, 3)
    return layer


def _rows(length: int = LENGTH) -> Rows:
    """Returns random rows of behaviours, candidates and users."""
    random = np.random.default_rng(1)
    batch, width = len(NUM_VALID), CONFIG.width
    shapes = (batch, length, width), (batch, CANDIDATES, width), (batch, width)
    return tuple(random.normal(size=s).astype("float32") for s in shapes)


def _pass(layer: Attention, rows: Rows, requests: dict[str, Any]) -> Rows:
    """Returns what behaviours and candidates read."""
    behaviors, candidates, users = rows
    history = places_of_history(requests["behavior_time"])
    plan = layer.plan(history, behaviors, for_history=True)
    encoded = layer.encode(behaviors, users, plan)
    request = places_of_request(requests["request_time"])
    features = layer.relate(request, plan.keys, plan.key_mask.shape[1])
    read = layer.read_history(behaviors, encoded, plan)
    asked = layer(candidates, *encoded, features, plan.key_mask, request)
    return np.asarray(read), np.asarray(asked)


def _check(config: SparseCTRRecipe, length: int = LENGTH) -> None:
    layer, rows = _layer(config), _rows(length)
    requests = make_requests(5, NUM_VALID, length=length)
    found = np.concatenate(_pass(layer, rows, requests), axis=1)
    encoding = {
        weight.name: np.asarray(weight, "float64")
        for weight in layer.encoding.weights
    }
    for b, times in enumerate(requests["behavior_time"]):
        behaviors, candidates, user = (x[b].astype("float64") for x in rows)
        request = Request(
            times,
            requests["request_time"][b],
            chunks_of(config, times, behaviors),
            bias_of(config, encoding),
            phase_of(config, encoding),
        )
        expected = attention(
            attention_weights(layer),
            np.concatenate([behaviors, candidates]),
            user,
            request,
            config,
        )
        kept = np.append(times > 0, [True] * CANDIDATES)
        np.testing.assert_allclose(found[b][kept], expected[kept], **TOLERANCE)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", ["evo", "full"])
def test_encodings(kind: str, encoding: str) -> None:
    _check(dataclasses.replace(CONFIG, attention=kind, encoding=encoding))


@pytest.mark.parametrize("chunking", ["fixed", "balanced", "similarity"])
def test_chunkings(chunking: str) -> None:
    _check(dataclasses.replace(CONFIG, chunking=chunking, encoding="alibi"))


@pytest.mark.parametrize("encoding", ["rope", "alibi"])
def test_without_the_local_branch(encoding: str) -> None:
    """Nothing stands nowhere then: no user's key that stays unturned."""
    branches = ("global", "transition")
    _check(dataclasses.replace(CONFIG, encoding=encoding, branches=branches))


def test_t5_buckets() -> None:
    """As far as they differ, and a row behind the last for no place."""
    distances = np.arange(200, dtype="int32")
    zeros = np.zeros((1, 200))
    keys = Places(zeros, distances[np.newaxis], zeros > 0, zeros > 0)
    query = Places(*(x[:, :1] for x in keys))
    bucket = np.asarray(T5Bias(1).relate(query, keys, 1)[0])[0, 0]
    assert bucket[-1] == 32
    # The first distance of each bucket, by hand from 16 * 8^(k / 16).
    first = [16, 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113]
    for number, distance in enumerate([*range(16), *first]):
        assert bucket[distance] == number
        assert distance == 0 or bucket[distance - 1] == number - 1
    assert np.all(bucket[113:-1] == 31)


def _key_ramp(
    self: ALiBi, queries: Places, keys: Places, num_unplaced: int = 0
) -> Features:
    """Distances as keras-hub has them: of keys alone."""
    del self, queries
    position = np.broadcast_to(keys.position, keys.time.shape)
    if position.ndim == 2:
        position = position[:, np.newaxis]
    padding = [(0, 0), (0, 0), (0, num_unplaced)]
    return (np.pad(position.astype("float32"), padding),)


@pytest.mark.parametrize("kind", ["evo", "full"])
def test_a_ramp_of_keys_is_alibi_under_a_plain_softmax(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not beside the user's key, which stands nowhere."""
    config = dataclasses.replace(CONFIG, attention=kind, encoding="alibi")
    layer, rows = _layer(config), _rows()
    requests = make_requests(5, NUM_VALID, length=LENGTH)
    read, asked = _pass(layer, rows, requests)
    monkeypatch.setattr(ALiBi, "relate", _key_ramp)
    other_read, other_asked = _pass(layer, rows, requests)
    # Candidates are at position 0, where distances are positions.
    np.testing.assert_allclose(other_asked, asked, **TOLERANCE)
    valid = requests["behavior_time"] > 0
    if isinstance(layer, FullAttention):
        np.testing.assert_allclose(other_read[valid], read[valid], **TOLERANCE)
    else:
        assert np.max(np.abs(other_read - read)[valid]) > 0.01


def _rotation(name: str) -> Any:
    return _layer(dataclasses.replace(CONFIG, encoding=name)).encoding


@pytest.mark.parametrize("name", ROTARY)
def test_equal_shifts_of_all_places(name: str) -> None:
    """They change nothing, but for the published form of T-RoPE."""
    layer = _rotation(name)
    keys, queries, _ = _rows()
    queries = queries[:, :1]
    requests = make_requests(5, NUM_VALID, length=LENGTH)
    history = places_of_history(requests["behavior_time"])
    request = places_of_request(requests["request_time"])

    def products(rows: int, seconds: int) -> np.ndarray:
        def shifted(places: Places) -> Places:
            return places._replace(
                time=places.time + seconds, position=places.position + rows
            )

        query = layer.turn(queries, shifted(request), is_query=True)
        key = layer.turn(keys, shifted(history), is_query=False)
        np.testing.assert_allclose(
            np.sum(np.square(key), axis=2),
            np.sum(np.square(keys), axis=2),
            rtol=1e-5,
        )
        return np.sum(np.multiply(query, key), axis=2)

    found = products(0, 0)
    valid = requests["behavior_time"] > 0
    assert np.mean(np.abs(found - np.sum(queries * keys, axis=2))[valid]) > 1.0
    moved = np.abs(products(101, 86_400_077) - found)[valid]
    if name == "t_rope_published":
        assert np.mean(moved) > 1.0
    else:
        assert np.max(moved) < 1e-4


@pytest.mark.parametrize("name", ROTARY)
def test_keys_that_stand_nowhere_are_read_without_a_turn(name: str) -> None:
    layer = _rotation(name)
    keys, candidates, users = _rows()
    queries = keys[::-1]
    requests = make_requests(5, NUM_VALID, length=LENGTH)
    history = places_of_history(requests["behavior_time"])
    # One for each query, where they ask from different places.
    user = users[:, np.newaxis]
    query = np.asarray(layer.turn(queries, history, is_query=True))
    own = layer.turn_unplaced(user, 1, history)
    np.testing.assert_allclose(
        np.sum(query * own, axis=2),
        np.sum(queries * user, axis=2),
        rtol=1e-4,
        atol=1e-4,
    )
    # The last of several, where queries ask from one place.
    request = places_of_request(requests["request_time"])
    query = np.asarray(layer.turn(candidates, request, is_query=True))
    found = np.asarray(layer.turn_unplaced(keys, 2, request))
    np.testing.assert_array_equal(found[:, :-2], keys[:, :-2])
    np.testing.assert_allclose(
        query @ found[:, -2:].swapaxes(1, 2),
        candidates @ keys[:, -2:].swapaxes(1, 2),
        rtol=1e-4,
        atol=1e-4,
    )
    # And they stay as they are while the others are turned.
    places = Places(*(x[:, :-2] for x in history))
    turned = np.asarray(layer.turn(keys, places, 2, is_query=False))
    np.testing.assert_array_equal(turned[:, -2:], keys[:, -2:])
    assert np.mean(np.abs(turned - keys)[:, :-2]) > 0.1


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", ["evo", "full"])
def test_other_times_of_all(kind: str, encoding: str) -> None:
    """The published form of T-RoPE alone reads more than differences."""
    layer = _layer(
        dataclasses.replace(CONFIG, attention=kind, encoding=encoding)
    )
    requests = make_requests(5, NUM_VALID, length=LENGTH)
    read, asked = _pass(layer, _rows(), requests)
    valid = requests["behavior_time"] > 0
    seconds = 86_400_077
    requests["behavior_time"] = requests["behavior_time"] + seconds * valid
    requests["request_time"] = requests["request_time"] + seconds
    moved_read, moved_asked = _pass(layer, _rows(), requests)
    if encoding == "t_rope_published":
        assert np.max(np.abs(moved_asked - asked)) > 0.01
        assert np.max(np.abs(moved_read - read)[valid]) > 0.01
    else:
        np.testing.assert_allclose(moved_asked, asked, **TOLERANCE)
        np.testing.assert_allclose(moved_read[valid], read[valid], **TOLERANCE)


@pytest.mark.parametrize("encoding", [ALiBi, T5Bias, RoPE])
def test_rejects_no_heads(encoding: Any) -> None:
    with pytest.raises(ValueError, match="`num_heads` must be at least 1"):
        encoding(0)


def test_rejects_heads_of_an_odd_width() -> None:
    with pytest.raises(ValueError, match=r"`encoding` must not turn heads"):
        SparseCTRRecipe(width=39, num_heads=3, encoding="rope")
    with pytest.raises(ValueError, match="`width` must be an even number for"):
        TRoPE(39, 3)
    zeros = np.zeros((1, 1))
    place = Places(zeros, zeros.astype("int32"), zeros > 0, zeros > 0)
    with pytest.raises(ValueError, match="heads of an even width"):
        RoPE(3).turn(np.zeros((1, 1, 39), "float32"), place, is_query=True)
