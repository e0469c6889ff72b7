"""An initializer that copies."""

from collections.abc import Callable
from typing import Any

from keras import ops


def same_as(variable: Any) -> Callable[..., Any]:
    """Returns an initializer whose value is that of another variable.

    Args:
        variable: A Keras variable that is created before.
    """

    def initialize(shape: Any, dtype: Any = None) -> Any:
        del shape
        return ops.cast(ops.convert_to_tensor(variable), dtype)

    return initialize
