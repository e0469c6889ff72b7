"""A key of one's own equals one more key that the others may not read."""

import numpy as np
import pytest

from sparsectr.ops.candidate_attention import attend_history_and_self
from sparsectr.ops.head_attention import attend_by_head
from sparsectr.ops.masked_softmax import masked_exponentials
from sparsectr.ops.trace import Trace


@pytest.mark.parametrize("is_shared", [True, False])
def test_equals_a_diagonal_of_keys(is_shared: bool) -> None:
    batch, queries, keys, heads, width = 2, 5, 11, 3, 21
    random = np.random.default_rng(0)

    def rows(count: int) -> np.ndarray:
        return random.normal(size=(batch, count, width)).astype("float32")

    query, own_key, own_value = rows(queries), rows(queries), rows(queries)
    key, value = rows(keys), rows(keys)
    mask = random.normal(size=(batch, queries, keys)) > 0.0
    mask[0, 1] = False  # it reads itself alone
    if is_shared:
        mask[:] = mask[:, 1:2]
    diagonal = np.broadcast_to(np.eye(queries, dtype=bool), (batch, 5, 5))
    expected = attend_by_head(
        query,
        np.concatenate([key, own_key], axis=1),
        np.concatenate([value, own_value], axis=1),
        None,
        np.concatenate([mask, diagonal], axis=2),
        heads,
        lambda logits, kept, _: masked_exponentials(logits, kept),
    )
    trace = Trace()
    found = attend_history_and_self(
        query,
        key,
        value,
        own_key,
        own_value,
        mask[:, 0] if is_shared else mask,
        heads,
        trace=trace,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[0, 1], own_value[0, 1], rtol=1e-5)
    weights = trace.tensors["weights"].numpy()
    assert weights.shape == (batch, queries, heads, keys + 1)
    np.testing.assert_allclose(weights.sum(axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(weights[0, 1, :, -1], 1.0)
