"""One request as a serialized tf.Example, without TensorFlow."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from export.messages.message_classes import Messages, message_classes
from sparsectr.process.utf8 import to_utf8

_PACKAGE = "sparsectr.example"

# Numbers from tensorflow/core/example/*.proto.
_MESSAGES: Messages = {
    "Example": [(1, "features", "Features")],
    "Features": [(1, "feature", "repeated Entry")],
    # A map on the wire is a repeated message of key and value.
    "Entry": [(1, "key", "string"), (2, "value", "Feature")],
    "Feature": [
        (1, "bytes_list", "BytesList"),
        (2, "float_list", "FloatList"),
        (3, "int64_list", "Int64List"),
    ],
    "BytesList": [(1, "value", "repeated bytes")],
    "FloatList": [(1, "value", "repeated float")],
    "Int64List": [(1, "value", "repeated int64")],
}

_Example = message_classes({_PACKAGE: _MESSAGES})(f"{_PACKAGE}.Example")


def serialized_example(request: Mapping[str, Any]) -> bytes:
    """Returns one request as a serialized tf.Example.

    Args:
        request: A value, or a flat array without padding, for each input of
            the listwise signature.

    Raises:
        InputError: If a text is none. It names the input.
    """
    example = _Example()
    for name, value in request.items():
        array = np.ravel(value)
        feature = example.features.feature.add(key=name).value
        if array.dtype.kind in "OSU":
            feature.bytes_list.value.extend(
                to_utf8(text, f"`{name}`") for text in array.tolist()
            )
        elif array.dtype.kind == "f":
            # Also an empty list says what kind it is.
            feature.float_list.SetInParent()
            feature.float_list.value.extend(array.tolist())
        else:
            feature.int64_list.SetInParent()
            feature.int64_list.value.extend(array.tolist())
    return bytes(example.SerializeToString())
