"""What a server could not compute in a graph."""

from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

from export.checks.c_api import Signature, registered_kernels

XLA_PREFIX = "serving_xla_"
"""How the names of compiled signatures begin."""

_PYTHON_OPERATIONS = ("PyFunc", "PyFuncStateless", "EagerPyFunc")


def xla_bucket(name: str) -> tuple[int, int, int]:
    """Returns B, L and C of a compiled signature, from its name.

    Raises:
        ValueError: If the name is none of a compiled signature.
    """
    sizes = name.removeprefix(XLA_PREFIX).split("_")
    batch_size, length, count = (int(size[1:]) for size in sizes)
    return batch_size, length, count


def _nodes(graph: Any) -> Iterator[Any]:
    """Yields the nodes of the graph and of its functions."""
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def check_operations(graph: Any) -> Iterator[str]:
    """Yields the operations that the server's library cannot compute.

    Args:
        graph: The `GraphDef`.
    """
    functions = {f.signature.name for f in graph.library.function}
    kernels: dict[str, list[Any]] = {}
    said = set()
    for node in _nodes(graph):
        if node.op in functions:
            continue
        if node.op not in kernels:
            kernels[node.op] = [
                kernel
                for kernel in registered_kernels(node.op)
                if kernel.device_type in ("CPU", "DEFAULT")
            ]
        problem = None
        if node.op in _PYTHON_OPERATIONS:
            problem = (
                f"operation {node.op} calls Python (py_function), which a "
                "server does not have"
            )
        elif not kernels[node.op]:
            problem = f"operation {node.op} has no CPU kernel"
        elif not any(_takes(kernel, node) for kernel in kernels[node.op]):
            problem = f"operation {node.op} has no CPU kernel for its dtypes"
        if problem and problem not in said:
            said.add(problem)
            yield f"{problem} (node {node.name})"


def _takes(kernel: Any, node: Any) -> bool:
    """Whether a kernel computes the dtypes of a node."""
    dtypes = {entry.key: entry.value.type for entry in node.attr}
    return all(
        # A dtype that is not written is the operation's default.
        not dtypes.get(constraint.name)
        or dtypes[constraint.name] in constraint.allowed_values.list.type
        for constraint in kernel.constraint
    )


def check_reached(graph: Any, served: Mapping[str, Signature]) -> Iterator[str]:
    """Yields what signatures need and a server does not have.

    That is a node or function that is not there, or XLA, if the signature is
    not one of those that are compiled on purpose.

    Args:
        graph: The `GraphDef`.
        served: Its signatures.
    """
    functions = {f.signature.name: f for f in graph.library.function}
    # What each node and each function needs.
    needs = {
        name: _called(function.node_def, functions)
        for name, function in functions.items()
    }
    compiled = {
        name
        for name, function in functions.items()
        if _must_compile(function) or any(map(_must_compile, function.node_def))
    }
    for node in graph.node:
        inputs = {i.lstrip("^").partition(":")[0] for i in node.input}
        # A function may have that name too.
        known = needs.get(node.name, set())
        needs[node.name] = known | inputs | _called([node], functions)
        if _must_compile(node):
            compiled.add(node.name)
    for name, signature in served.items():
        tensors = (*signature.inputs.values(), *signature.outputs.values())
        reached = _reachable([info.operation for info in tensors], needs)
        for absent in sorted(reached - needs.keys()):
            yield f"signature {name} needs {absent}, which is not in the graph"
        if reached & compiled and not name.startswith(XLA_PREFIX):
            yield (
                f"signature {name} must be compiled by XLA, which a server "
                "does not do by default"
            )


def _must_compile(node: Any) -> bool:
    return any(
        entry.key == "_XlaMustCompile" and entry.value.b for entry in node.attr
    )


def _called(nodes: Iterable[Any], functions: Container[str]) -> set[str]:
    """Returns the functions that nodes call."""
    called = set()
    for node in nodes:
        if node.op in functions:
            called.add(node.op)
        for entry in node.attr:
            called.add(entry.value.func.name)
            called.update(f.name for f in entry.value.list.func)
    return called - {""}


def _reachable(start: list[str], needs: Mapping[str, set[str]]) -> set[str]:
    """Returns the nodes and functions that the nodes `start` need."""
    reached: set[str] = set()
    waiting = list(start)
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += needs.get(name, ())
    return reached
