import keras
import numpy as np
import pytest
import tensorflow as tf

from sparsectr.ops.best_columns import best_columns
from tests.reference.retrieval import best


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
@pytest.mark.parametrize("count", [1, 5, 11, 19])
def test_equals_a_stable_sort(mode: str, count: int) -> None:
    random = np.random.default_rng(count)
    # Ties everywhere.
    scores = random.integers(-3, 3, size=(7, 2, 11)).astype("float32")
    mask = random.random((7, 1, 11)) < 0.7
    mask[0], mask[1] = False, True

    def call(scores: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return best_columns(scores, mask, count)

    if mode != "eager":
        shape = [7, 2, 11] if mode == "xla" else [None, None, None]
        call = tf.function(
            call,
            jit_compile=mode == "xla",
            input_signature=[
                tf.TensorSpec(shape),
                tf.TensorSpec([shape[0], 1, shape[2]], "bool"),
            ],
        )
    index, found = (x.numpy() for x in call(scores, mask))
    assert index.shape == found.shape == (7, 2, min(count, 11))
    assert index.dtype == "int32"
    for b, c in np.ndindex(7, 2):
        columns = np.flatnonzero(mask[b, 0])
        expected = columns[best(scores[b, c, columns], count)]
        kept = index[b, c][found[b, c]]
        np.testing.assert_array_equal(kept, expected)


def test_has_no_gradient() -> None:
    scores = tf.constant([[1.0, 2.0]])
    with tf.GradientTape() as tape:
        tape.watch(scores)
        index, _ = best_columns(scores, keras.ops.ones((1, 2), "bool"), 1)
        total = tf.reduce_sum(tf.gather(tf.square(scores), index, batch_dims=1))
    gradient = tf.convert_to_tensor(tape.gradient(total, scores))
    np.testing.assert_array_equal(gradient, [[0.0, 4.0]])
