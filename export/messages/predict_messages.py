"""The messages of TensorFlow Serving's gRPC interface, without TensorFlow.

The generated classes of tensorflow-serving-api import TensorFlow. These have
the same names, field numbers and bytes on the wire. Fields that nothing here
needs are left out: what a server sends in them is kept and ignored.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf import any_pb2, wrappers_pb2

from export.messages.message_classes import Messages, message_classes

Array = np.ndarray[Any, Any]

# An enum is an int32 on the wire.
_TENSORFLOW: Messages = {
    "Dim": [(1, "size", "int64")],
    "TensorShapeProto": [
        (2, "dim", "repeated Dim"),
        (3, "unknown_rank", "bool"),
    ],
    "TensorProto": [
        (1, "dtype", "int32"),
        (2, "tensor_shape", "TensorShapeProto"),
        (4, "tensor_content", "bytes"),
        (5, "float_val", "repeated float"),
        (6, "double_val", "repeated double"),
        (7, "int_val", "repeated int32"),
        (8, "string_val", "repeated bytes"),
        (10, "int64_val", "repeated int64"),
        (11, "bool_val", "repeated bool"),
    ],
    "TensorInfo": [
        (1, "name", "string"),
        (2, "dtype", "int32"),
        (3, "tensor_shape", "TensorShapeProto"),
    ],
    "SignatureDef": [
        (1, "inputs", "map TensorInfo"),
        (2, "outputs", "map TensorInfo"),
        (3, "method_name", "string"),
    ],
}
_SERVING: Messages = {
    "ModelSpec": [
        (1, "name", "string"),
        (2, "version", "google.protobuf.Int64Value"),
        (3, "signature_name", "string"),
        # One of version and version_label.
        (4, "version_label", "string"),
    ],
    "PredictRequest": [
        (1, "model_spec", "ModelSpec"),
        (2, "inputs", "map tensorflow.TensorProto"),
        (3, "output_filter", "repeated string"),
    ],
    "PredictResponse": [
        (1, "outputs", "map tensorflow.TensorProto"),
        (2, "model_spec", "ModelSpec"),
    ],
    "PredictLog": [
        (1, "request", "PredictRequest"),
        (2, "response", "PredictResponse"),
    ],
    "PredictionLog": [(6, "predict_log", "PredictLog")],
    "GetModelMetadataRequest": [
        (1, "model_spec", "ModelSpec"),
        (2, "metadata_field", "repeated string"),
    ],
    "GetModelMetadataResponse": [
        (1, "model_spec", "ModelSpec"),
        (2, "metadata", "map google.protobuf.Any"),
    ],
    "SignatureDefMap": [(1, "signature_def", "map tensorflow.SignatureDef")],
}


_message = message_classes(
    {"tensorflow": _TENSORFLOW, "tensorflow.serving": _SERVING},
    known=(any_pb2.DESCRIPTOR, wrappers_pb2.DESCRIPTOR),
)

TensorProto = _message("tensorflow.TensorProto")
ModelSpec = _message("tensorflow.serving.ModelSpec")
PredictRequest = _message("tensorflow.serving.PredictRequest")
PredictResponse = _message("tensorflow.serving.PredictResponse")
PredictionLog = _message("tensorflow.serving.PredictionLog")
GetModelMetadataRequest = _message("tensorflow.serving.GetModelMetadataRequest")
GetModelMetadataResponse = _message(
    "tensorflow.serving.GetModelMetadataResponse"
)
SignatureDefMap = _message("tensorflow.serving.SignatureDefMap")

# tensorflow.DataType: number, NumPy's name, and the field of TensorProto.
_DATA_TYPES = [
    (1, "float32", "float_val"),
    (2, "float64", "double_val"),
    (3, "int32", "int_val"),
    (7, "string", "string_val"),
    (9, "int64", "int64_val"),
    (10, "bool", "bool_val"),
]
_NUMBERS = {name: number for number, name, _ in _DATA_TYPES}
_NAMES = {number: name for number, name, _ in _DATA_TYPES}
_VALUE_FIELDS = {name: field for _, name, field in _DATA_TYPES}


def data_type_name(number: int) -> str:
    """Returns NumPy's name of a `tensorflow.DataType`, or "string".

    Raises:
        ValueError: If no request or answer has tensors of that type.
    """
    if number not in _NAMES:
        raise ValueError(f"Tensors of data type {number} are not supported.")
    return _NAMES[number]


def to_tensor(array: Any) -> Any:
    """Returns a `TensorProto` of an array.

    Args:
        array: An array, or what `np.asarray` makes one of. Texts are sent
            as UTF-8.

    Raises:
        ValueError: If the type cannot be sent.
    """
    values = np.asarray(array)
    is_text = values.dtype.kind in "OSU"
    if is_text:
        # Of a list NumPy makes texts of one width: they lose the zeros at
        # their end, and a number among them becomes a text.
        values = np.asarray(array, object)
    name = "string" if is_text else values.dtype.name
    if name not in _NUMBERS:
        raise ValueError(f"Arrays of type {name} cannot be sent.")
    tensor = TensorProto(dtype=_NUMBERS[name])
    for size in values.shape:
        tensor.tensor_shape.dim.add(size=size)
    if is_text:
        tensor.string_val.extend(_to_bytes(value) for value in values.flat)
    else:
        dtype = values.dtype.newbyteorder("<")
        little_endian = values.astype(dtype, copy=False)
        tensor.tensor_content = little_endian.tobytes()
    return tensor


def _to_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    raise ValueError(f"Not a text: {value!r}")


def to_array(tensor: Any) -> Array:
    """Returns the array of a `TensorProto`, texts as `bytes` objects.

    Args:
        tensor: A message of this module, or TensorFlow's own. Its values are
            in `tensor_content`, or in the field of its type, where the last
            one stands for all that are not there.

    Raises:
        ValueError: If its values do not fill its shape, or have a type that
            no request or answer has.
    """
    name = data_type_name(tensor.dtype)
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    dtype = np.dtype(object if name == "string" else name)
    size = math.prod(shape)
    if tensor.tensor_content:
        if name == "string":
            raise ValueError("Texts in `tensor_content` are not supported.")
        values = np.frombuffer(
            tensor.tensor_content, dtype.newbyteorder("<")
        ).astype(dtype)
    else:
        values = np.array(getattr(tensor, _VALUE_FIELDS[name]), dtype)
        if 0 < values.size < size:
            values = np.pad(values, (0, size - values.size), mode="edge")
    if values.size != size:
        raise ValueError(
            f"A tensor of shape {shape} with {values.size} values."
        )
    return values.reshape(shape)


def model_spec(
    name: str, version: int | None = None, label: str | None = None
) -> Any:
    """Returns the `ModelSpec` of a model.

    Args:
        name: Name under which the server knows it.
        version: Which version.
        label: Or the label of one. Without both it is the newest.
    """
    spec = ModelSpec(name=name, version_label=label)
    if version is not None:
        spec.version.value = version
    return spec


def predict_request(
    model_name: str,
    signature_name: str,
    inputs: Mapping[str, Any],
    version: int | None = None,
    label: str | None = None,
) -> Any:
    """Returns a `PredictRequest`.

    Args:
        model_name: Name under which the server knows the model.
        signature_name: Which signature to run.
        inputs: An array for each input.
        version: Which version.
        label: Or the label of one. Without both it is the newest.

    Raises:
        ValueError: If an array has a type that cannot be sent.
    """
    request = PredictRequest(model_spec=model_spec(model_name, version, label))
    request.model_spec.signature_name = signature_name
    for name, array in inputs.items():
        request.inputs[name].CopyFrom(to_tensor(array))
    return request
