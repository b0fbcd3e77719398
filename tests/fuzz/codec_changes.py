"""New inputs of the codec target from old ones: a field is changed, and the lengths around it go with it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from handmade import END_GROUP, FIXED32, FIXED64, GROUP, LENGTH, NUMBERS, VARINT, delimited, group, number, tag, varint

Mutate = Callable[[bytes, int], bytes]

REQUEST, INPUT, OUTPUT, ENTRY, VALUE, CONTENTS = range(6)
# Which fields of which messages are messages.
INSIDE = {
    (REQUEST, 4): ENTRY, (REQUEST, 5): INPUT, (REQUEST, 6): OUTPUT, (INPUT, 4): ENTRY, (INPUT, 5): CONTENTS,
    (OUTPUT, 2): ENTRY, (ENTRY, 2): VALUE,
}  # fmt: skip
KEYS = (
    "timeout", "priority", "sequence_id", "sequence_start", "sequence_end", "triton_enable_empty_final_response",
    "triton_x", "shared_memory_region", "shared_memory_offset", "shared_memory_byte_size", "classification", "",
)  # fmt: skip
VALUES = (
    0,
    1,
    2,
    3,
    5,
    127,
    128,
    255,
    256,
    65536,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 62,
    1 << 63,
    (1 << 64) - 1,
)
TEXTS = (b"", b"x", b"y", b"m", "\u2603".encode(), b"\xff", b"\xed\xa0\x80", b"12345678" * 3, b"y19")


class Field(NamedTuple):
    """One field as it is on the wire; a varint's value is its bytes."""

    number: int
    kind: int
    payload: bytes


def fields_of(data: bytes) -> tuple[list[Field], bytes]:
    """The fields at the start of some bytes, and what is left."""
    found = []
    while data:
        head, at = number_at(data, 0)
        kind = head & 7
        start = at
        if kind == VARINT:
            _, at = number_at(data, at)
        elif kind == LENGTH:
            size, start = number_at(data, at)
            at = start + size
        else:
            at += {FIXED32: 4, FIXED64: 8}.get(kind, 0)
        if at > len(data) or not head >> 3:
            break
        found.append(Field(head >> 3, kind, data[start:at]))
        data = data[at:]
    return found, data


def number_at(data: bytes, at: int) -> tuple[int, int]:
    """A varint, and where it ends; beyond the end of the bytes if they do not hold it."""
    value = shift = 0
    while at < len(data):
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at
    return value, at + 1


def joined(fields: list[Field]) -> bytes:
    return b"".join(
        delimited(one.number, one.payload) if one.kind == LENGTH else tag(one.number, one.kind) + one.payload
        for one in fields
    )


def change(data: bytes, limit: int, seed: int, mutate: Mutate) -> bytes:
    """An input like this one."""
    random = Random(seed)
    choice = random.random()
    if choice < 0.2 or not data:
        return mutate(data, limit)
    mode = bytes([random.randrange(256)]) if choice < 0.3 else data[:1]
    body = data[1:]
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        body = changed(body, REQUEST, random, mutate)
    return (mode + body)[:limit]


def changed(data: bytes, message: int, random: Random, mutate: Mutate) -> bytes:
    fields, rest = fields_of(data)
    at = random.randrange(len(fields) + 1)
    if at == len(fields) or random.random() < 0.15:
        fields.insert(at, made(message, random))
        return joined(fields) + rest
    one = fields[at]
    inside = INSIDE.get((message, one.number)) if one.kind == LENGTH else None
    choice = random.random()
    if inside is not None and choice < 0.7:
        fields[at] = one._replace(payload=changed(one.payload, inside, random, mutate))
    elif choice < 0.1:
        del fields[at]
    elif choice < 0.2:
        fields.insert(random.randrange(len(fields) + 1), one)
    elif choice < 0.3:
        other = random.randrange(len(fields))
        fields[at], fields[other] = fields[other], one
    elif choice < 0.5:
        fields[at] = made(message, random)
    elif choice < 0.9 or one.kind != LENGTH:
        fields[at] = one._replace(payload=mutate(one.payload, len(one.payload) + 12))
    else:
        return joined(fields[:at]) + tag(one.number, LENGTH) + varint(random.choice(VALUES)) + one.payload + rest
    return joined(fields) + rest


def made(message: int, random: Random) -> Field:
    """A field that such a message has, or any other."""
    choice = random.random()
    if choice < 0.1:
        inside = random.choice((varint(random.choice(VALUES)), b"", number(9, 1), group(3, b""), tag(9, END_GROUP)))
        return Field(random.randrange(1, 9), GROUP, inside + tag(random.randrange(1, 9), END_GROUP))
    if choice < 0.25:
        payloads = varint(random.choice(VALUES)), bytes(8), random.choice(TEXTS), b"", b"", bytes(4)
        kind = random.choice((VARINT, FIXED32, FIXED64, LENGTH))
        return Field(random.randrange(1, 10), kind, payloads[kind])
    return random.choice(fields_of(MAKERS[message](random))[0])


def request(random: Random) -> bytes:
    inputs = random.randrange(3)
    fields = [delimited(5, input_of(random)) for _ in range(inputs)]
    fields += [delimited(7, random.randbytes(random.choice((0, 1, 2, 4, 8, 16, 48)))) for _ in range(inputs)]
    fields += [delimited(4, entry(random)), delimited(6, output(random)), delimited(3, random.choice(TEXTS))]
    return b"".join(fields)


def output(random: Random) -> bytes:
    return delimited(1, random.choice(TEXTS)) + delimited(2, entry(random))


def parameter(random: Random) -> bytes:
    kind = random.randrange(1, 6)
    if kind == 3:
        return delimited(3, random.choice(TEXTS))
    return tag(4, FIXED64) + bytes(8) if kind == 4 else number(kind, random.choice(VALUES))


def entry(random: Random) -> bytes:
    return delimited(1, random.choice(KEYS)) + delimited(2, parameter(random))


def contents(random: Random) -> bytes:
    field, count = random.randrange(1, 9), random.randrange(1, 5)
    if field == 8:
        return b"".join(delimited(8, random.choice(TEXTS)) for _ in range(count))
    if field >= 6:
        width = 4 if field == 6 else 8
        if random.random() < 0.5:
            return delimited(field, random.randbytes(width * count))
        return b"".join(tag(field, FIXED32 if field == 6 else FIXED64) + random.randbytes(width) for _ in range(count))
    values = [varint(random.choice(VALUES)) for _ in range(count)]
    if random.random() < 0.5:
        return delimited(field, b"".join(values))
    return b"".join(tag(field, VARINT) + value for value in values)


def input_of(random: Random) -> bytes:
    """An input that is right, as often as not."""
    shape = b"".join(varint(random.choice((0, 1, 1, 2, 2, 3, 1 << 40))) for _ in range(random.randrange(3)))
    made = delimited(1, random.choice(TEXTS)) + delimited(2, random.choice(list(NUMBERS))) + delimited(3, shape)
    made += delimited(5, contents(random)) if random.random() < 0.5 else b""
    return made + (delimited(4, entry(random)) if random.random() < 0.1 else b"")


MAKERS: dict[int, Callable[[Random], bytes]] = {
    REQUEST: request, INPUT: input_of, OUTPUT: output, ENTRY: entry, VALUE: parameter, CONTENTS: contents,
}  # fmt: skip
