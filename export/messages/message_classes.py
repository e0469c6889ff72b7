"""Protobuf messages made at run time, without a compiler and TensorFlow.

Each set lives in a descriptor pool of its own: TensorFlow registers the same
names in the default one, and both can be in one process.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

Messages = Mapping[str, Iterable[tuple[int, str, str]]]
"""Message to its fields: number, name, and type as a .proto file writes it.

The type may be `repeated T`, or `map T` for a map from strings to T.
"""

_TYPES = {
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "double": FieldDescriptorProto.TYPE_DOUBLE,
    "float": FieldDescriptorProto.TYPE_FLOAT,
    "int32": FieldDescriptorProto.TYPE_INT32,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "string": FieldDescriptorProto.TYPE_STRING,
}


def message_classes(
    packages: Mapping[str, Messages], known: Iterable[Any] = ()
) -> Callable[[str], Any]:
    """Returns a function that gives the class of a message by its full name.

    A message keeps the fields that are not named as they came: what is parsed
    and written again has lost nothing.

    Args:
        packages: Package to its messages; later ones may use earlier ones.
        known: Descriptors of files that all of them may use.
    """
    pool = DescriptorPool()
    names = []
    for descriptor in known:
        pool.AddSerializedFile(descriptor.serialized_pb)
        names.append(descriptor.name)
    for package, messages in packages.items():
        file = _file(package, messages, names)
        pool.AddSerializedFile(file.SerializeToString())
        names.append(file.name)

    def message_class(name: str) -> Any:
        return GetMessageClass(pool.FindMessageTypeByName(name))

    return message_class


def _file(
    package: str,
    messages: Messages,
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
