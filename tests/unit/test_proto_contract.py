"""Our messages against the ones that Triton's own client carries: every name, number, type and rpc.

Both sides are flattened to lines of text, so that a difference is a line somebody can read.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import (
    Descriptor,
    EnumDescriptor,
    FieldDescriptor,
    FileDescriptor,
    MethodDescriptor,
)
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2 as their_model_config_pb2
from tritonclient.grpc import service_pb2 as their_inference_pb2

from inferd.proto import inference_pb2, model_config_pb2
from inferd.proto.pool import POOL

OURS: tuple[FileDescriptor, ...] = (inference_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR)
THEIRS: tuple[FileDescriptor, ...] = (their_inference_pb2.DESCRIPTOR, their_model_config_pb2.DESCRIPTOR)

# What differs on purpose. Anything else that differs is a mistake.
ONLY_OURS = {
    # The Open Inference Protocol has it, Triton's text does not. Clients that lack it skip it.
    "field inference.ModelMetadataResponse.properties = 6: repeated message "
    "inference.ModelMetadataResponse.PropertiesEntry",
    "message inference.ModelMetadataResponse.PropertiesEntry (map entry)",
    "field inference.ModelMetadataResponse.PropertiesEntry.key = 1: singular string",
    "field inference.ModelMetadataResponse.PropertiesEntry.value = 2: singular string",
    # Presence: "not said" can be told from 0. The bytes are the same.
    "field inference.ModelConfig.max_batch_size = 4: optional int32",
}
ONLY_THEIRS = {
    "field inference.ModelConfig.max_batch_size = 4: singular int32",
}

TYPES = {int(number): name[len("TYPE_") :].lower() for name, number in FieldDescriptorProto.Type.items()}


def test_nothing_of_tritons_contract_is_missing_here() -> None:
    missing = contract(THEIRS) - contract(OURS) - ONLY_THEIRS
    assert not missing, "tritonclient has these and we do not:\n" + listed(missing)


def test_nothing_here_differs_from_tritons_contract_unless_it_is_listed() -> None:
    extra = contract(OURS) - contract(THEIRS) - ONLY_OURS
    assert not extra, "we have these, tritonclient and ONLY_OURS do not:\n" + listed(extra)


def test_every_listed_difference_still_is_one() -> None:
    ours, theirs = contract(OURS), contract(THEIRS)
    stale = (ONLY_OURS - (ours - theirs)) | (ONLY_THEIRS - (theirs - ours))
    assert not stale, "listed as a difference, but none:\n" + listed(stale)


def test_there_are_twenty_rpcs_and_one_of_them_streams() -> None:
    (service,) = inference_pb2.DESCRIPTOR.services_by_name.values()
    assert service.full_name == "inference.GRPCInferenceService"
    assert len(service.methods) == 20
    streaming = [m.name for m in service.methods if m.client_streaming or m.server_streaming]
    assert streaming == ["ModelStreamInfer"]


def test_our_messages_live_in_a_pool_of_their_own() -> None:
    assert inference_pb2.DESCRIPTOR.pool is POOL
    assert model_config_pb2.DESCRIPTOR.pool is POOL
    assert their_inference_pb2.DESCRIPTOR.pool is not POOL


def test_a_batch_size_that_was_not_said_can_be_told_from_zero() -> None:
    silent, zero = model_config_pb2.ModelConfig(), model_config_pb2.ModelConfig(max_batch_size=0)
    assert not silent.HasField("max_batch_size")
    assert zero.HasField("max_batch_size")
    assert their_model_config_pb2.ModelConfig.FromString(zero.SerializeToString()).max_batch_size == 0


@pytest.mark.parametrize("name", sorted(their_inference_pb2.DESCRIPTOR.message_types_by_name))
def test_a_full_message_of_tritonclient_means_the_same_here(name: str) -> None:
    theirs = filled(their_inference_pb2.DESCRIPTOR.message_types_by_name[name])
    ours = GetMessageClass(inference_pb2.DESCRIPTOR.message_types_by_name[name])()
    ours.ParseFromString(theirs.SerializeToString())
    assert str(ours) == str(theirs)


@given(size=st.none() | st.integers(-(2**31), 2**31 - 1), dims=st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_a_model_config_of_ours_means_the_same_to_tritonclient(size: int | None, dims: list[int]) -> None:
    ours = model_config_pb2.ModelConfig(name="m", input=[model_config_pb2.ModelInput(name="x", dims=dims)])
    if size is not None:
        ours.max_batch_size = size
    theirs = their_model_config_pb2.ModelConfig.FromString(ours.SerializeToString())
    assert theirs.max_batch_size == ours.max_batch_size
    assert list(theirs.input[0].dims) == dims


# --- both contracts as text --------------------------------------------------------------------------


def contract(files: tuple[FileDescriptor, ...]) -> set[str]:
    """Every fact of the wire that the files state, one a line."""
    facts: set[str] = set()
    for file in files:
        facts.add(f"package {file.package}")
        for message in file.message_types_by_name.values():
            facts.update(message_facts(message))
        for enum in file.enum_types_by_name.values():
            facts.update(enum_facts(enum))
        for service in file.services_by_name.values():
            facts.update(rpc_fact(method) for method in service.methods)
    return facts


def message_facts(message: Descriptor) -> Iterator[str]:
    is_map_entry = message.GetOptions().map_entry
    yield f"message {message.full_name}{' (map entry)' if is_map_entry else ''}"
    for field in message.fields:
        yield field_fact(field)
    for enum in message.enum_types:
        yield from enum_facts(enum)
    for nested in message.nested_types:
        yield from message_facts(nested)


def field_fact(field: FieldDescriptor) -> str:
    kind = TYPES[field.type]
    referred = field.message_type or field.enum_type
    if referred is not None:
        kind += f" {referred.full_name}"
    return f"field {field.full_name} = {field.number}: {label(field)} {kind}"


def label(field: FieldDescriptor) -> str:
    if field.is_repeated:
        packed = field.type != FieldDescriptor.TYPE_MESSAGE and field.is_packed
        return "repeated packed" if packed else "repeated"
    group = field.containing_oneof
    if group is None:
        return "singular"
    # protoc keeps `optional` as a oneof of one, named after its field.
    return "optional" if group.name == f"_{field.name}" else f"oneof {group.name}"


def enum_facts(enum: EnumDescriptor) -> Iterator[str]:
    yield f"enum {enum.full_name}"
    for value in enum.values:
        yield f"value {enum.full_name}.{value.name} = {value.number}"


def rpc_fact(method: MethodDescriptor) -> str:
    taken = ("stream " if method.client_streaming else "") + method.input_type.full_name
    given_back = ("stream " if method.server_streaming else "") + method.output_type.full_name
    return f"rpc /{method.containing_service.full_name}/{method.name}({taken}) returns ({given_back})"


def listed(facts: set[str]) -> str:
    return "\n".join(f"  {fact}" for fact in sorted(facts))


def filled(descriptor: Descriptor) -> Message:
    """A message with something other than the default in every field, all the way down."""
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        fill(message, field)
    return message


def fill(message: Message, field: FieldDescriptor) -> None:
    slot = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = field.message_type.fields_by_name["value"]
        key = plain(field.message_type.fields_by_name["key"])
        if value.message_type is not None:
            slot[key].CopyFrom(filled(value.message_type))
        else:
            slot[key] = plain(value)
    elif field.message_type is not None:
        target = slot.add() if field.is_repeated else slot
        target.CopyFrom(filled(field.message_type))
    elif field.is_repeated:
        slot.append(plain(field))
    else:
        setattr(message, field.name, plain(field))


def plain(field: FieldDescriptor) -> object:
    """A value of the field's type that no other field of its message has, unless it is a bool or an enum."""
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_BOOL:
            return True
        case FieldDescriptor.CPPTYPE_STRING:
            return field.name.encode() if field.type == FieldDescriptor.TYPE_BYTES else field.name
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return field.number + 0.5
        case _:
            return field.number + 100
