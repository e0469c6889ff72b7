"""Every encoding and chunking in SparseCTR's attentions, by the reference."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from configs.models.sparse_ctr import SparseCTRRecipe
from sparsectr.layers.attention.attention import Attention
from sparsectr.layers.attention.full_attention import FullAttention
from sparsectr.layers.encoding.alibi import ALiBi
from sparsectr.layers.encoding.encoding import Features
from sparsectr.layers.encoding.t5_bias import T5Bias
from sparsectr.models.sparse_ctr import SparseCTR
from sparsectr.ops.places import Places, places_of_history, places_of_request
from tests.keras_weights import attention_weights, randomize
from tests.make_requests import SCHEMA, make_requests
from tests.reference.chunkings import chunks_of
from tests.reference.encodings import bias_of
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
    asked = layer(candidates, *encoded, features, plan.key_mask)
    return np.asarray(read), np.asarray(asked)


def _check(config: SparseCTRRecipe, length: int = LENGTH) -> None:
    layer, rows = _layer(config), _rows(length)
    requests = make_requests(5, NUM_VALID, length=length)
    found = np.concatenate(_pass(layer, rows, requests), axis=1)
    encoding = {
        weight.name: np.asarray(weight, "float64")
        for weight in layer.encoding.weights
    }
    bias = bias_of(config, encoding)
    for b, times in enumerate(requests["behavior_time"]):
        behaviors, candidates, user = (x[b].astype("float64") for x in rows)
        request = Request(
            times,
            requests["request_time"][b],
            chunks_of(config, times, behaviors),
            bias,
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


@pytest.mark.parametrize("encoding", ["hstu", "t5", "alibi", "none"])
@pytest.mark.parametrize("kind", ["evo", "full"])
def test_encodings(kind: str, encoding: str) -> None:
    _check(dataclasses.replace(CONFIG, attention=kind, encoding=encoding))


@pytest.mark.parametrize("chunking", ["fixed", "balanced", "similarity"])
def test_chunkings(chunking: str) -> None:
    _check(dataclasses.replace(CONFIG, chunking=chunking, encoding="alibi"))


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


@pytest.mark.parametrize("encoding", [ALiBi, T5Bias])
def test_rejects_no_heads(encoding: Any) -> None:
    with pytest.raises(ValueError, match="`num_heads` must be at least 1"):
        encoding(0)
