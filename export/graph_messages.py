"""The protobuf messages of a SavedModel, without TensorFlow.

Only the fields that are read here are named. A message keeps the others as
they came, so what is parsed and written again has lost nothing.

The messages live in a pool of their own: TensorFlow registers the same names
in the default one, and a process may import it later.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "sparsectr.graph"

# Message -> field -> (number, type). A trailing * is `repeated`; a type that
# is no scalar is a message of this table. Numbers from tensorflow/core:
# protobuf/saved_model.proto, protobuf/meta_graph.proto and framework/*.proto.
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "SavedModel": {"meta_graphs": (2, "MetaGraphDef*")},
    "MetaGraphDef": {
        "meta_info_def": (1, "MetaInfoDef"),
        "graph_def": (2, "GraphDef"),
        "signature_def": (5, "SignatureEntry*"),
    },
    "MetaInfoDef": {"tags": (4, "string*")},
    # A map on the wire is a repeated message of key and value.
    "SignatureEntry": {"key": (1, "string"), "value": (2, "SignatureDef")},
    "SignatureDef": {
        "inputs": (1, "TensorInfoEntry*"),
        "outputs": (2, "TensorInfoEntry*"),
        "method_name": (3, "string"),
    },
    "TensorInfoEntry": {"key": (1, "string"), "value": (2, "TensorInfo")},
    "TensorInfo": {
        "name": (1, "string"),
        "dtype": (2, "int32"),
        "tensor_shape": (3, "TensorShape"),
    },
    "TensorShape": {"dim": (2, "Dim*"), "unknown_rank": (3, "bool")},
    "Dim": {"size": (1, "int64")},
    "GraphDef": {"node": (1, "Node*"), "library": (2, "Library")},
    "Library": {"function": (1, "Function*")},
    "Function": {
        "signature": (1, "OpSignature"),
        "attr": (5, "AttrEntry*"),
        "node_def": (3, "Node*"),
    },
    "OpSignature": {"name": (1, "string")},
    "Node": {
        "name": (1, "string"),
        "op": (2, "string"),
        "input": (3, "string*"),
        "attr": (5, "AttrEntry*"),
    },
    "AttrEntry": {"key": (1, "string"), "value": (2, "AttrValue")},
    "AttrValue": {
        "list": (1, "ListValue"),
        "b": (5, "bool"),
        "type": (6, "int32"),
        "func": (10, "NamedFunction"),
    },
    "ListValue": {"type": (6, "int32*"), "func": (9, "NamedFunction*")},
    "NamedFunction": {"name": (1, "string")},
    "KernelList": {"kernel": (1, "Kernel*")},
    "Kernel": {
        "op": (1, "string"),
        "device_type": (2, "string"),
        "constraint": (3, "Constraint*"),
    },
    "Constraint": {"name": (1, "string"), "allowed_values": (2, "AttrValue")},
}

_SCALARS = {
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    "int32": descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
    "int64": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
}


def _make_messages() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="sparsectr/graph.proto", package=_PACKAGE, syntax="proto3"
    )
    for message_name, fields in _MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for name, (number, kind) in fields.items():
            field = message.field.add(name=name, number=number)
            field.label = (
                field.LABEL_REPEATED
                if kind.endswith("*")
                else field.LABEL_OPTIONAL
            )
            kind = kind.rstrip("*")
            if kind in _SCALARS:
                field.type = _SCALARS[kind]
            else:
                field.type = field.TYPE_MESSAGE
                field.type_name = f".{_PACKAGE}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")
        )
        for name in _MESSAGES
    }


_CLASSES = _make_messages()

SavedModel: Any = _CLASSES["SavedModel"]
MetaGraphDef: Any = _CLASSES["MetaGraphDef"]
KernelList: Any = _CLASSES["KernelList"]
