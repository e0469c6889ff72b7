"""What a pass leaves behind for those who look into it."""

from sparsectr.ops.tensor import Tensor


class Trace:
    """Tensors by name, gathered on the way.

    Layers take one as `trace`, or `None`, and then compute nothing for it.

    Attributes:
        tensors: What was recorded.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._prefix = ""

    def within(self, name: str) -> "Trace":
        """Returns the same trace for a part, whose names begin with `name`."""
        part = Trace()
        part.tensors = self.tensors
        part._prefix = f"{self._prefix}{name}/"
        return part

    def record(self, name: str, tensor: Tensor) -> None:
        """Keeps a tensor."""
        self.tensors[self._prefix + name] = tensor


def within(trace: Trace | None, name: str) -> Trace | None:
    """Returns `trace.within(name)`, or `None` without a trace."""
    return None if trace is None else trace.within(name)
