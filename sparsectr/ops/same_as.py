"""An initializer that copies."""

from collections.abc import Callable

from keras import ops

from sparsectr.ops.tensor import Tensor


def same_as(variable: Tensor) -> Callable[..., Tensor]:
    """Returns an initializer whose value is that of another variable.

    Args:
        variable: A Keras variable that is created before.
    """

    def initialize(shape: object, dtype: str | None = None) -> Tensor:
        del shape
        return ops.cast(ops.convert_to_tensor(variable), dtype)

    return initialize
