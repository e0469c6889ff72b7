import numpy as np

from sparsectr.ops.own_keys import attend_own_keys, gather_own_rows
from sparsectr.ops.trace import Trace
from tests.reference.retrieval import softmax

B, C, K, H, D = 2, 3, 7, 5, 10


def test_gathers_for_each_candidate() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(B, 11, D)).astype("float32")
    index = random.integers(0, 11, size=(B, C, K), dtype=np.int32)
    found = gather_own_rows(rows, index)
    numbers = gather_own_rows(rows[..., 0], index)
    assert numbers.shape == (B, C, K)
    for b, c, k in np.ndindex(B, C, K):
        np.testing.assert_array_equal(found[b, c, k], rows[b, index[b, c, k]])
        assert numbers[b, c, k] == rows[b, index[b, c, k], 0]


def test_equals_a_loop() -> None:
    random = np.random.default_rng(1)
    query = random.normal(size=(B, C, D)).astype("float32")
    keys = random.normal(size=(B, C, K, D)).astype("float32")
    values = random.normal(size=(B, C, K, D)).astype("float32")
    mask = random.random((B, C, K)) < 0.5
    mask[0, 0] = False
    trace = Trace()
    found = attend_own_keys(query, keys, values, mask, H, trace).numpy()
    weights = trace.tensors["weights"].numpy()
    assert weights.shape == (B, C, H, K)
    for b, c, h in np.ndindex(B, C, H):
        columns = slice(h * D // H, (h + 1) * D // H)
        kept = mask[b, c]
        logits = keys[b, c, kept, columns] @ query[b, c, columns]
        expected = np.zeros(D // H)
        if kept.any():
            own = softmax(logits / (D // H) ** 0.5)
            np.testing.assert_allclose(weights[b, c, h, kept], own, rtol=1e-5)
            expected = own @ values[b, c, kept, columns]
        np.testing.assert_allclose(
            found[b, c, columns], expected, rtol=1e-5, atol=1e-6
        )
        assert np.all(weights[b, c, h, ~kept] == 0.0)
    assert np.all(found[0, 0] == 0.0)
