"""Messages of the protocol as plain JSON: its own field names, whole numbers as numbers, enums by name.

protobuf's mapping writes 64-bit numbers as texts, which clients of the REST protocol do not expect.
"""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import Any


def plain(message: Any) -> dict[str, Any]:
    """Every field that has a value; of those that can be absent the ones that are there."""
    return {
        field.name: _value(field, getattr(message, field.name))
        for field in message.DESCRIPTOR.fields
        if not field.has_presence or message.HasField(field.name)
    }


def _value(field: Any, value: Any) -> Any:
    of_map = field.message_type is not None and field.message_type.GetOptions().map_entry
    if of_map:
        inner = field.message_type.fields_by_name["value"]
        return {str(key): _one(inner, value[key]) for key in sorted(value)}
    if isinstance(value, MutableSequence):
        return [_one(field, one) for one in value]
    return _one(field, value)


def _one(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return plain(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value.decode("latin-1") if isinstance(value, bytes) else value
