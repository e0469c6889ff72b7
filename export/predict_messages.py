"""The messages of TensorFlow Serving's gRPC interface, without TensorFlow.

The generated classes of tensorflow-serving-api import TensorFlow. These have
the same names, field numbers and bytes on the wire, and are made at run time
with the protobuf library alone. They live in a descriptor pool of their own,
so both can be in one process. Fields that nothing here needs are left out:
what a server sends in them is kept and ignored.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf import any_pb2, wrappers_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

Array = np.ndarray[Any, Any]

_TYPES = {
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "double": FieldDescriptorProto.TYPE_DOUBLE,
    "float": FieldDescriptorProto.TYPE_FLOAT,
    "int32": FieldDescriptorProto.TYPE_INT32,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "string": FieldDescriptorProto.TYPE_STRING,
}

# Message to its fields: number, name, and a type as a .proto file would write
# it. An enum is an int32 on the wire.
_TENSORFLOW = {
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
_SERVING = {
    "ModelSpec": [
        (1, "name", "string"),
        (2, "version", "google.protobuf.Int64Value"),
        (3, "signature_name", "string"),
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


def _file(
    package: str,
    messages: Mapping[str, list[tuple[int, str, str]]],
    dependencies: list[str],
) -> FileDescriptorProto:
    file = FileDescriptorProto(
        name=f"{package}.proto",
        package=package,
        syntax="proto3",
        dependency=dependencies,
    )
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for number, field_name, declaration in fields:
            label, _, type_name = declaration.rpartition(" ")
            if label == "map":
                type_name = _add_map_entry(message, field_name, type_name)
            _add_field(message, number, field_name, type_name, bool(label))
    return file


def _add_map_entry(message: Any, field_name: str, value_type: str) -> str:
    """Adds what `map<string, value_type>` stands for and returns its name."""
    words = field_name.split("_")
    entry = message.nested_type.add(
        name="".join(word.capitalize() for word in words) + "Entry"
    )
    entry.options.map_entry = True
    _add_field(entry, 1, "key", "string", is_repeated=False)
    _add_field(entry, 2, "value", value_type, is_repeated=False)
    return f"{message.name}.{entry.name}"


def _add_field(
    message: DescriptorProto,
    number: int,
    name: str,
    type_name: str,
    is_repeated: bool,
) -> None:
    field = message.field.add(
        name=name,
        number=number,
        label=FieldDescriptorProto.LABEL_REPEATED
        if is_repeated
        else FieldDescriptorProto.LABEL_OPTIONAL,
    )
    if type_name in _TYPES:
        field.type = _TYPES[type_name]
    else:
        field.type = FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = type_name


def _make_pool() -> DescriptorPool:
    pool = DescriptorPool()
    known = [any_pb2.DESCRIPTOR, wrappers_pb2.DESCRIPTOR]
    for file in known:
        pool.AddSerializedFile(file.serialized_pb)
    tensorflow = _file("tensorflow", _TENSORFLOW, [])
    pool.AddSerializedFile(tensorflow.SerializeToString())
    names = [*(file.name for file in known), tensorflow.name]
    serving = _file("tensorflow.serving", _SERVING, names)
    pool.AddSerializedFile(serving.SerializeToString())
    return pool


_POOL = _make_pool()


def _message(name: str) -> Any:
    return GetMessageClass(_POOL.FindMessageTypeByName(name))


TensorProto = _message("tensorflow.TensorProto")
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
    array = np.asarray(array)
    is_text = array.dtype.kind in "OSU"
    name = "string" if is_text else array.dtype.name
    if name not in _NUMBERS:
        raise ValueError(f"Arrays of type {name} cannot be sent.")
    tensor = TensorProto(dtype=_NUMBERS[name])
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if is_text:
        tensor.string_val.extend(_to_bytes(value) for value in array.flat)
    else:
        little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
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


def predict_request(
    model_name: str,
    signature_name: str,
    inputs: Mapping[str, Any],
    version: int | None = None,
) -> Any:
    """Returns a `PredictRequest`.

    Args:
        model_name: Name under which the server knows the model.
        signature_name: Which signature to run.
        inputs: An array for each input.
        version: Which version; without it the server takes the newest.

    Raises:
        ValueError: If an array has a type that cannot be sent.
    """
    request = PredictRequest()
    request.model_spec.name = model_name
    request.model_spec.signature_name = signature_name
    if version is not None:
        request.model_spec.version.value = version
    for name, array in inputs.items():
        request.inputs[name].CopyFrom(to_tensor(array))
    return request
