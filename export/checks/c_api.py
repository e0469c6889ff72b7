"""A SavedModel as the server loads it: TensorFlow's C API through ctypes.

`TF_LoadSessionFromSavedModel` is the loader of TensorFlow Serving.
"""

import ctypes
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from export.checks.c_library import (
    DTYPES,
    array_of,
    bytes_of,
    call,
    library,
    new_tensor,
)
from export.messages.graph_messages import KernelList, MetaGraphDef
from sparsectr.errors import InputError

Array = npt.NDArray[Any]

_TAG = b"serve"


class TensorInfo(NamedTuple):
    """One input or output of a signature.

    Attributes:
        operation: Name of the operation that it belongs to.
        output: Which output of that operation, from 0.
        dtype: A name of `DTYPES`.
        shape: Sizes, `None` where open; `None` for an open rank.
    """

    operation: str
    output: int
    dtype: str
    shape: tuple[int | None, ...] | None


class Signature(NamedTuple):
    """Inputs and outputs by name."""

    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]


def signatures_of(meta_graph: Any) -> dict[str, Signature]:
    """Returns the signatures of a `MetaGraphDef`, by name."""
    return {
        entry.key: Signature(
            {e.key: _tensor_info(e.value) for e in entry.value.inputs},
            {e.key: _tensor_info(e.value) for e in entry.value.outputs},
        )
        for entry in meta_graph.signature_def
        # The loader's own: it runs the initializers of the tables.
        if entry.key != "__saved_model_init_op"
    }


def _tensor_info(message: Any) -> TensorInfo:
    operation, _, output = message.name.partition(":")
    shape: tuple[int | None, ...] | None = None
    if not message.tensor_shape.unknown_rank:
        sizes = [dim.size for dim in message.tensor_shape.dim]
        shape = tuple(None if size < 0 else size for size in sizes)
    dtype = DTYPES.get(message.dtype, f"dtype {message.dtype}")
    return TensorInfo(operation, int(output or 0), dtype, shape)


class SavedModelSession:
    """A loaded SavedModel.

    Args:
        path: Folder of a version.

    Attributes:
        signatures: Its signatures, by name.

    Raises:
        InputError: If the loader refuses it.
        RuntimeError: If this process has imported TensorFlow.

    Example:
        with SavedModelSession("models/sparsectr/1") as session:
            answer = session.run("serving_default", inputs)
    """

    def __init__(self, path: Path | str) -> None:
        self._path = path
        self._graph = library().TF_NewGraph()
        options = library().TF_NewSessionOptions()
        buffer = library().TF_NewBuffer()
        try:
            self._session = call(
                f"{path} cannot be loaded",
                library().TF_LoadSessionFromSavedModel,
                options,
                None,
                os.fsencode(path),
                (ctypes.c_char_p * 1)(_TAG),
                1,
                self._graph,
                buffer,
            )
            self._meta_graph = MetaGraphDef.FromString(bytes_of(buffer))
        finally:
            library().TF_DeleteSessionOptions(options)
            library().TF_DeleteBuffer(buffer)
        self.signatures = signatures_of(self._meta_graph)

    def __enter__(self) -> "SavedModelSession":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Frees the model; `run` is not possible afterwards."""
        if self._session:
            call("closing", library().TF_CloseSession, self._session)
            call("closing", library().TF_DeleteSession, self._session)
            library().TF_DeleteGraph(self._graph)
            self._session = None

    def operations(self) -> set[str]:
        """Returns the operations of the graph and its functions, by type."""
        graph = self._meta_graph.graph_def
        names = {node.op for node in graph.node}
        for function in graph.library.function:
            names.update(node.op for node in function.node_def)
        return names

    def run(
        self, signature_name: str, inputs: Mapping[str, Any]
    ) -> dict[str, Array]:
        """Returns what a signature answers, as the server would compute it.

        Args:
            signature_name: One of `signatures`.
            inputs: An array for each of its inputs; text as an array or
                list of `str` or `bytes`.

        Returns:
            Its outputs by name; text as an object array of `bytes`.

        Raises:
            InputError: If the inputs do not fit, or an operation fails.
        """
        if signature_name not in self.signatures:
            raise InputError(f"{self._path} has no signature {signature_name}.")
        if not self._session:
            raise ValueError(f"The session of {self._path} is closed.")
        signature = self.signatures[signature_name]
        where = f"{self._path}, {signature_name}"
        _check_names(where, signature.inputs, inputs)
        num_outputs = len(signature.outputs)
        results = (ctypes.c_void_p * num_outputs)()
        tensors = []
        try:
            for name, info in signature.inputs.items():
                array = _array(inputs[name], info)
                _check_dtype(f"{where}, {name}", info, array)
                tensors.append(new_tensor(array))
            call(
                where,
                library().TF_SessionRun,
                self._session,
                None,
                self._places(signature.inputs),
                (ctypes.c_void_p * len(tensors))(*tensors),
                len(tensors),
                self._places(signature.outputs),
                results,
                num_outputs,
                None,
                0,
                None,
            )
            return {
                name: array_of(result)
                for name, result in zip(signature.outputs, results, strict=True)
            }
        finally:
            for tensor in (*tensors, *results):
                if tensor:
                    library().TF_DeleteTensor(tensor)

    def _places(self, tensors: Mapping[str, TensorInfo]) -> Any:
        places = (_Output * len(tensors))()
        for place, info in zip(places, tensors.values(), strict=True):
            place.operation = library().TF_GraphOperationByName(
                self._graph, info.operation.encode()
            )
            if not place.operation:
                raise InputError(
                    f"{self._path} names {info.operation} in a signature, "
                    "which is not in its graph."
                )
            place.index = info.output
        return places


def registered_kernels(operation: str) -> list[Any]:
    """Returns the `Kernel` messages of an operation in the C++ library."""
    buffer = call(
        operation, library().TF_GetRegisteredKernelsForOp, operation.encode()
    )
    try:
        return list(KernelList.FromString(bytes_of(buffer)).kernel)
    finally:
        library().TF_DeleteBuffer(buffer)


def read_checkpoint(prefix: Path | str) -> Iterator[tuple[str, Array]]:
    """Yields name and value of each numeric tensor of a checkpoint.

    Args:
        prefix: Path of the checkpoint without `.index`.

    Raises:
        InputError: If it cannot be read.
    """
    where = f"{prefix} cannot be read"
    reader = call(where, library().TF_NewCheckpointReader, os.fsencode(prefix))
    try:
        for index in range(library().TF_CheckpointReaderSize(reader)):
            name = library().TF_CheckpointReaderGetVariable(reader, index)
            dtype = library().TF_CheckpointReaderGetVariableDataType(
                reader, name
            )
            if DTYPES.get(dtype) == "string":
                continue
            tensor = call(
                where, library().TF_CheckpointReaderGetTensor, reader, name
            )
            try:
                yield name.decode(), array_of(tensor)
            finally:
                library().TF_DeleteTensor(tensor)
    finally:
        library().TF_DeleteCheckpointReader(reader)


class _Output(ctypes.Structure):
    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


def _check_names(
    where: str, expected: Mapping[str, Any], inputs: Mapping[str, Any]
) -> None:
    missing = sorted(expected.keys() - inputs.keys())
    if missing:
        raise InputError(f"{where}: missing input {', '.join(missing)}.")
    extra = sorted(inputs.keys() - expected.keys())
    if extra:
        raise InputError(f"{where}: unknown input {', '.join(extra)}.")


def _array(value: Any, info: TensorInfo) -> Array:
    if info.dtype == "string" and not isinstance(value, np.ndarray):
        # NumPy's own texts end where the NULs at the end begin.
        return np.asarray(value, object)
    return np.asarray(value)


def _check_dtype(where: str, info: TensorInfo, array: Array) -> None:
    dtype = "string" if array.dtype.kind in "OSU" else array.dtype.name
    if dtype != info.dtype:
        raise InputError(f"{where}: is {dtype} and must be {info.dtype}.")
