"""A key of one's own equals one more key that the others may not read."""

import numpy as np
import pytest

from sparsectr.ops import head_attention
from sparsectr.ops.masked_softmax import masked_exponentials
from sparsectr.ops.own_key import OwnKey

FORMS = ("attend_block_diagonal", "attend_by_head")


@pytest.mark.parametrize("name", FORMS)
def test_equals_a_diagonal_of_keys(name: str) -> None:
    attend = getattr(head_attention, name)
    batch, queries, keys, heads, width = 2, 5, 11, 3, 21
    random = np.random.default_rng(0)

    def rows(count: int) -> np.ndarray:
        return random.normal(size=(batch, count, width)).astype("float32")

    query, own_key, own_value = rows(queries), rows(queries), rows(queries)
    key, value = rows(keys), rows(keys)
    mask = random.normal(size=(batch, queries, keys)) > 0.0
    mask[0, 1] = False  # it reads itself alone
    diagonal = np.broadcast_to(np.eye(queries, dtype=bool), (batch, 5, 5))
    expected = attend(
        query,
        np.concatenate([key, own_key], axis=1),
        np.concatenate([value, own_value], axis=1),
        None,
        np.concatenate([mask, diagonal], axis=2),
        heads,
        lambda logits, kept, _: masked_exponentials(logits, kept),
    )
    own = OwnKey(query, own_key, heads)
    found = attend(query, key, value, None, mask, heads, own.numerators)
    found = found + own.weighted(own_value)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[0, 1], own_value[0, 1], rtol=1e-5)
