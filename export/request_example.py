"""One request as a serialized tf.Example, without TensorFlow."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "sparsectr.example"

# tensorflow/core/example/*.proto: message -> (number, name, type, repeated).
_MESSAGES: dict[str, list[tuple[int, str, str | int, bool]]] = {
    "Example": [(1, "features", "Features", False)],
    "Features": [(1, "feature", "Entry", True)],
    # A map on the wire is a repeated message of key and value.
    "Entry": [
        (1, "key", _FIELD.TYPE_STRING, False),
        (2, "value", "Feature", False),
    ],
    "Feature": [
        (1, "bytes_list", "BytesList", False),
        (2, "float_list", "FloatList", False),
        (3, "int64_list", "Int64List", False),
    ],
    "BytesList": [(1, "value", _FIELD.TYPE_BYTES, True)],
    "FloatList": [(1, "value", _FIELD.TYPE_FLOAT, True)],
    "Int64List": [(1, "value", _FIELD.TYPE_INT64, True)],
}


def _make_example() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="sparsectr/example.proto", package=_PACKAGE, syntax="proto3"
    )
    for message_name, fields in _MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for number, name, kind, is_repeated in fields:
            field = message.field.add(name=name, number=number)
            field.label = (
                _FIELD.LABEL_REPEATED if is_repeated else _FIELD.LABEL_OPTIONAL
            )
            if isinstance(kind, str):
                field.type = _FIELD.TYPE_MESSAGE
                field.type_name = f".{_PACKAGE}.{kind}"
            else:
                field.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName(f"{_PACKAGE}.Example")
    )


_Example = _make_example()


def serialized_example(request: Mapping[str, Any]) -> bytes:
    """Returns one request as a serialized tf.Example.

    Args:
        request: A value, or a flat array without padding, for each input of
            the listwise signature.
    """
    example = _Example()
    for name, value in request.items():
        array = np.ravel(value)
        feature = example.features.feature.add(key=name).value
        if array.dtype.kind in "OSU":
            feature.bytes_list.value.extend(
                text.encode() if isinstance(text, str) else text
                for text in array.tolist()
            )
        elif array.dtype.kind == "f":
            # Also an empty list says what kind it is.
            feature.float_list.SetInParent()
            feature.float_list.value.extend(array.tolist())
        else:
            feature.int64_list.SetInParent()
            feature.int64_list.value.extend(array.tolist())
    return bytes(example.SerializeToString())
