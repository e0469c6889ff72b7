"""The protobuf messages of a SavedModel, without TensorFlow.

Only the fields that are read here are named. A message keeps the others as
they came, so what is parsed and written again has lost nothing.
"""

from typing import Any

from export.messages.message_classes import Messages, message_classes

_PACKAGE = "sparsectr.graph"

# Numbers from tensorflow/core: protobuf/saved_model.proto,
# protobuf/meta_graph.proto and framework/*.proto.
_MESSAGES: Messages = {
    "SavedModel": [
        (2, "meta_graphs", "repeated MetaGraphDef"),
    ],
    "MetaGraphDef": [
        (1, "meta_info_def", "MetaInfoDef"),
        (2, "graph_def", "GraphDef"),
        (5, "signature_def", "repeated SignatureEntry"),
    ],
    "MetaInfoDef": [
        (4, "tags", "repeated string"),
    ],
    # A map on the wire is a repeated message of key and value.
    "SignatureEntry": [
        (1, "key", "string"),
        (2, "value", "SignatureDef"),
    ],
    "SignatureDef": [
        (1, "inputs", "repeated TensorInfoEntry"),
        (2, "outputs", "repeated TensorInfoEntry"),
        (3, "method_name", "string"),
    ],
    "TensorInfoEntry": [
        (1, "key", "string"),
        (2, "value", "TensorInfo"),
    ],
    "TensorInfo": [
        (1, "name", "string"),
        (2, "dtype", "int32"),
        (3, "tensor_shape", "TensorShape"),
    ],
    "TensorShape": [
        (2, "dim", "repeated Dim"),
        (3, "unknown_rank", "bool"),
    ],
    "Dim": [
        (1, "size", "int64"),
    ],
    "GraphDef": [
        (1, "node", "repeated Node"),
        (2, "library", "Library"),
    ],
    "Library": [
        (1, "function", "repeated Function"),
    ],
    "Function": [
        (1, "signature", "OpSignature"),
        (5, "attr", "repeated AttrEntry"),
        (3, "node_def", "repeated Node"),
    ],
    "OpSignature": [
        (1, "name", "string"),
    ],
    "Node": [
        (1, "name", "string"),
        (2, "op", "string"),
        (3, "input", "repeated string"),
        (5, "attr", "repeated AttrEntry"),
    ],
    "AttrEntry": [
        (1, "key", "string"),
        (2, "value", "AttrValue"),
    ],
    "AttrValue": [
        (1, "list", "ListValue"),
        (5, "b", "bool"),
        (6, "type", "int32"),
        (10, "func", "NamedFunction"),
    ],
    "ListValue": [
        (6, "type", "repeated int32"),
        (9, "func", "repeated NamedFunction"),
    ],
    "NamedFunction": [
        (1, "name", "string"),
    ],
    "KernelList": [
        (1, "kernel", "repeated Kernel"),
    ],
    "Kernel": [
        (1, "op", "string"),
        (2, "device_type", "string"),
        (3, "constraint", "repeated Constraint"),
    ],
    "Constraint": [
        (1, "name", "string"),
        (2, "allowed_values", "AttrValue"),
    ],
}

_message = message_classes({_PACKAGE: _MESSAGES})

SavedModel: Any = _message(f"{_PACKAGE}.SavedModel")
MetaGraphDef: Any = _message(f"{_PACKAGE}.MetaGraphDef")
KernelList: Any = _message(f"{_PACKAGE}.KernelList")
