"""The two messages of Health/List, also where the installed grpcio-health-checking is older than List.

The releases of that package which accept protobuf 6 end before List was added to it, so it cannot be
had by asking for a newer one. The wire format is the protocol's own either way.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2


def list_messages() -> tuple[type[Message], type[Message]]:
    """The classes of HealthListRequest and HealthListResponse: the installed ones, else ones made here."""
    file: Any = health_pb2.DESCRIPTOR
    if "HealthListResponse" not in file.message_types_by_name:
        file = _with_list(file.serialized_pb)
    messages = file.message_types_by_name
    return GetMessageClass(messages["HealthListRequest"]), GetMessageClass(messages["HealthListResponse"])


def _with_list(health_proto: bytes) -> FileDescriptor:
    file = FileDescriptorProto.FromString(health_proto)
    file.ClearField("service")
    file.message_type.add(name="HealthListRequest")
    response = file.message_type.add(name="HealthListResponse")
    _add_map_of_statuses(response, file.package)
    # A pool of their own: the default one already holds this file, without List.
    pool = DescriptorPool()
    pool.Add(file)
    return pool.FindFileByName(file.name)


def _add_map_of_statuses(response: DescriptorProto, package: str) -> None:
    """Add ``map<string, HealthCheckResponse> statuses = 1``, spelt the way protoc spells a map."""
    entry = response.nested_type.add(name="StatusesEntry")
    entry.options.map_entry = True
    one, many = FieldDescriptorProto.LABEL_OPTIONAL, FieldDescriptorProto.LABEL_REPEATED
    text, message = FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_MESSAGE
    entry.field.add(name="key", number=1, label=one, type=text)
    value_type = f".{package}.HealthCheckResponse"
    entry.field.add(name="value", number=2, label=one, type=message, type_name=value_type)
    entry_type = f".{package}.HealthListResponse.StatusesEntry"
    response.field.add(name="statuses", number=1, label=many, type=message, type_name=entry_type)
