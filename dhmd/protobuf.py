"""Protocol Buffers described in Python: what is stored and sent needs no compiler and no generated code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

_SCALARS: Final = {
    "double": descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE,
    "float": descriptor_pb2.FieldDescriptorProto.TYPE_FLOAT,
    "uint32": descriptor_pb2.FieldDescriptorProto.TYPE_UINT32,
    "uint64": descriptor_pb2.FieldDescriptorProto.TYPE_UINT64,
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    "bytes": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
}
_UNPACKED: Final = {"string", "bytes"}


def message_classes(file: str, package: str, messages: Mapping[str, Mapping[str, str]]) -> Mapping[str, Any]:
    """The class of each message.

    messages: name -> field -> "[repeated ]KIND", where a kind is a scalar, "Timestamp", or another message. Fields are
    numbered in the order they stand: new ones go to the end.
    """
    described = descriptor_pb2.FileDescriptorProto(name=file, package=package, syntax="proto2")
    described.dependency.append(timestamp_pb2.DESCRIPTOR.name)
    for name, fields in messages.items():
        message = described.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields.items(), start=1):
            entry = message.field.add(name=field, number=number)
            single = kind.removeprefix("repeated ")
            entry.label = entry.LABEL_REPEATED if single != kind else entry.LABEL_OPTIONAL
            if single in _SCALARS:
                entry.type = _SCALARS[single]
                if single != kind and single not in _UNPACKED:
                    entry.options.packed = True
            else:
                entry.type = entry.TYPE_MESSAGE
                entry.type_name = f".{'google.protobuf' if single == 'Timestamp' else package}.{single}"
    pool = descriptor_pool.Default()
    pool.Add(described)
    types = {name: pool.FindMessageTypeByName(f"{package}.{name}") for name in messages}
    return {name: message_factory.GetMessageClass(kind) for name, kind in types.items()}


def check(message: Any, latest: float | None = None) -> None:
    """Raise ValueError for text that is none, and, with `latest`, for times that are not finite or beyond it on either
    side; times are all doubles. Parsing lets both through: such text comes as bytes."""
    for field, value in message.ListFields():
        values = value if field.is_repeated else (value,)
        if field.message_type is not None:
            for part in values:
                check(part, latest)
        elif field.type == field.TYPE_STRING and not all(isinstance(text, str) for text in values):
            raise ValueError(f"{field.name}: text that is none")
        elif (
            field.type == field.TYPE_DOUBLE
            and latest is not None
            and not all(-latest <= time_s <= latest for time_s in values)
        ):
            raise ValueError(f"{field.name}: a time that is none")


def source(package: str, messages: Mapping[str, Mapping[str, str]]) -> str:
    """The same messages as a .proto file would describe them; for those without a Timestamp, which it would import."""
    lines = ['syntax = "proto2";', f"package {package};"]
    for name, fields in messages.items():
        lines.append(f"message {name} {{")
        for number, (field, kind) in enumerate(fields.items(), start=1):
            single = kind.removeprefix("repeated ")
            packed = " [packed = true]" if single != kind and single in _SCALARS and single not in _UNPACKED else ""
            label = "optional" if single == kind else "repeated"
            lines.append(f"  {label} {single} {field} = {number}{packed};")
        lines.append("}")
    return "\n".join(lines) + "\n"
