"""The C library of TensorFlow, without Python's TensorFlow.

It has the kernels that C++ has and no more, as a server does. In a process
that has imported Python's TensorFlow it would have others besides, so there
it is refused.
"""

import ctypes
import functools
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.messages.predict_messages import data_type_name
from sparsectr.errors import InputError
from sparsectr.process.quiet_tensorflow import without_notes

Array = npt.NDArray[Any]

DTYPES: dict[int, str] = {
    **{number: data_type_name(number) for number in (1, 2, 3, 7, 9, 10)},
    # Those that no request has, and a graph may.
    4: "uint8",
    5: "int16",
    6: "int8",
    14: "bfloat16",
    17: "uint16",
    19: "float16",
    20: "resource",
    22: "uint32",
    23: "uint64",
}
"""Names of TensorFlow's dtypes by their number; NumPy's, and "string"."""

_NUMPY_LACKS = ("bfloat16", "resource")
_DTYPE_NUMBERS = {name: number for number, name in DTYPES.items()}


_STRING_BYTES = 24
"""Size of a TF_TString (tensorflow/core/platform/ctstring_internal.h)."""

_POINTER = ctypes.c_void_p
_TEXT = ctypes.c_char_p
_SIZE = ctypes.c_size_t
_INT = ctypes.c_int

# Result and arguments. Without them ctypes would cut pointers to 32 bits.
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "TF_NewStatus": (_POINTER,),
    "TF_DeleteStatus": (None, _POINTER),
    "TF_GetCode": (_INT, _POINTER),
    "TF_Message": (_TEXT, _POINTER),
    "TF_NewGraph": (_POINTER,),
    "TF_DeleteGraph": (None, _POINTER),
    "TF_NewSessionOptions": (_POINTER,),
    "TF_DeleteSessionOptions": (None, _POINTER),
    "TF_NewBuffer": (_POINTER,),
    "TF_DeleteBuffer": (None, _POINTER),
    "TF_LoadSessionFromSavedModel": (
        _POINTER,
        *(_POINTER, _POINTER, _TEXT, ctypes.POINTER(_TEXT), _INT),
        *(_POINTER, _POINTER, _POINTER),
    ),
    "TF_CloseSession": (None, _POINTER, _POINTER),
    "TF_DeleteSession": (None, _POINTER, _POINTER),
    "TF_SessionRun": (
        None,
        *(_POINTER, _POINTER),
        *(_POINTER, _POINTER, _INT),
        *(_POINTER, _POINTER, _INT),
        *(_POINTER, _INT, _POINTER, _POINTER),
    ),
    "TF_GraphOperationByName": (_POINTER, _POINTER, _TEXT),
    "TF_AllocateTensor": (_POINTER, _INT, _POINTER, _INT, _SIZE),
    "TF_DeleteTensor": (None, _POINTER),
    "TF_TensorType": (_INT, _POINTER),
    "TF_NumDims": (_INT, _POINTER),
    "TF_Dim": (ctypes.c_int64, _POINTER, _INT),
    "TF_TensorByteSize": (_SIZE, _POINTER),
    "TF_TensorData": (_POINTER, _POINTER),
    "TF_StringInit": (None, _POINTER),
    "TF_StringCopy": (None, _POINTER, _TEXT, _SIZE),
    "TF_StringGetDataPointer": (_POINTER, _POINTER),
    "TF_StringGetSize": (_SIZE, _POINTER),
    "TF_GetRegisteredKernelsForOp": (_POINTER, _TEXT, _POINTER),
    "TF_NewCheckpointReader": (_POINTER, _TEXT, _POINTER),
    "TF_DeleteCheckpointReader": (None, _POINTER),
    "TF_CheckpointReaderSize": (_INT, _POINTER),
    "TF_CheckpointReaderGetVariable": (_TEXT, _POINTER, _INT),
    "TF_CheckpointReaderGetVariableDataType": (_INT, _POINTER, _TEXT),
    "TF_CheckpointReaderGetTensor": (_POINTER, _POINTER, _TEXT, _POINTER),
}


class _Buffer(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("deallocator", ctypes.c_void_p),
    ]


@functools.cache
def library() -> ctypes.CDLL:
    """Returns the C++ library of the installed TensorFlow.

    Raises:
        InputError: If there is none.
        RuntimeError: If this process has imported TensorFlow.
    """
    if "tensorflow" in sys.modules:
        raise RuntimeError(
            "This process has imported TensorFlow, whose kernels the server "
            "does not have. Load the SavedModel in a process of its own."
        )
    found = importlib.util.find_spec("tensorflow")
    if found is None or found.origin is None:
        raise InputError("TensorFlow is not installed.")
    path = Path(found.origin).parent / "libtensorflow_cc.so.2"
    with without_notes():
        loaded = ctypes.CDLL(str(path), mode=ctypes.RTLD_LOCAL)
    for name, (result, *arguments) in _FUNCTIONS.items():
        function = getattr(loaded, name)
        function.restype = result
        function.argtypes = arguments
    return loaded


def call(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function whose last argument is a status.

    Args:
        what: What it is about, for the error.
        function: A function of the library.
        *arguments: All of its arguments but the status.

    Raises:
        InputError: If the status says that it failed.
    """
    status = library().TF_NewStatus()
    try:
        result = function(*arguments, status)
        if library().TF_GetCode(status) != 0:
            message = library().TF_Message(status).decode(errors="replace")
            raise InputError(f"{what}: {' '.join(message.split())}")
        return result
    finally:
        library().TF_DeleteStatus(status)


def bytes_of(buffer: int) -> bytes:
    """Returns the content of a TF_Buffer."""
    content = ctypes.cast(buffer, ctypes.POINTER(_Buffer)).contents
    return ctypes.string_at(content.data, content.length)


def new_tensor(array: Array) -> int:
    """Returns a new tensor with a copy of an array."""
    is_text = array.dtype.kind in "OSU"
    dims = (ctypes.c_int64 * array.ndim)(*array.shape)
    dtype = _DTYPE_NUMBERS["string" if is_text else array.dtype.name]
    size = _STRING_BYTES * array.size if is_text else array.nbytes
    tensor: int = library().TF_AllocateTensor(dtype, dims, array.ndim, size)
    data = library().TF_TensorData(tensor)
    if is_text:
        for place, text in enumerate(array.ravel().tolist()):
            content = text.encode() if isinstance(text, str) else text
            if not isinstance(content, bytes):
                raise InputError(f"Not a text: {content!r}")
            string = data + _STRING_BYTES * place
            library().TF_StringInit(string)
            library().TF_StringCopy(string, content, len(content))
    elif size:
        contiguous = np.ascontiguousarray(array)
        ctypes.memmove(data, contiguous.ctypes.data, size)
    return tensor


def array_of(tensor: int) -> Array:
    """Returns an array with a copy of a tensor."""
    rank = library().TF_NumDims(tensor)
    shape = [library().TF_Dim(tensor, axis) for axis in range(rank)]
    number = library().TF_TensorType(tensor)
    dtype = DTYPES.get(number)
    if dtype is None or dtype in _NUMPY_LACKS:
        raise InputError(f"NumPy has no type for {dtype or number}.")
    data = library().TF_TensorData(tensor)
    if dtype == "string":
        count = int(np.prod(shape, dtype=np.int64))
        values = np.empty(count, object)
        values[:] = [_text(data + _STRING_BYTES * i) for i in range(count)]
        return values.reshape(shape)
    size = library().TF_TensorByteSize(tensor)
    # A tensor without elements has no memory to point to.
    content = ctypes.string_at(data, size) if size else b""
    return np.frombuffer(content, dtype).reshape(shape)


def _text(string: int) -> bytes:
    return ctypes.string_at(
        library().TF_StringGetDataPointer(string),
        library().TF_StringGetSize(string),
    )
