"""A number that keeps compilers from computing a thing again."""

from keras import ops

from sparsectr.ops.tensor import Tensor


def runtime_one(values: Tensor) -> Tensor:
    """A 1 that no compiler knows, for what is to be computed only once.

    XLA computes cheap producers again wherever they are read: here for every
    head, and once more for the sum of the softmax. It does not do so with a
    division whose divisor it cannot see, and the features then are stored:
    a third less time for the keys of all heads.

    Args:
        values: Any finite tensor.

    Returns:
        float32 scalar, 1, without a gradient.
    """
    # Of no values there is no maximum.
    initial = None if all(values.shape) else 0
    highest = ops.stop_gradient(ops.max(values, initial=initial))
    return ops.cast(highest, "float32") * 0.0 + 1.0
