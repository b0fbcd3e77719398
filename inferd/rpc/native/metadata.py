"""Metadata between Python's form of it and HTTP/2 headers, after grpc/grpc doc/PROTOCOL-HTTP2.md."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, TypeAlias

Header: TypeAlias = tuple[bytes, bytes]
Pairs: TypeAlias = Iterable[tuple[str, str | bytes]]

# What the transport reads and writes itself.
RESERVED: Final = frozenset(
    (
        "connection", "content-length", "content-type", "grpc-accept-encoding", "grpc-encoding", "grpc-message",
        "grpc-status", "grpc-timeout", "host", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade",
    )
)  # fmt: skip
_NAME: Final = re.compile(r"[0-9a-z_.-]+")
_TEXT: Final = re.compile(rb"[\x20-\x7e]*")


class Metadatum(NamedTuple):
    """One pair; the value is bytes where the key ends with -bin."""

    key: str
    value: str | bytes


def received(headers: Iterable[Header]) -> tuple[Metadatum, ...]:
    """What a client sent, without what only the transport reads."""
    return tuple(_received(headers))


def _received(headers: Iterable[Header]) -> Iterator[Metadatum]:
    for name, value in headers:
        key = name.decode("latin-1")
        if key.startswith(":") or key in RESERVED:
            continue
        if not key.endswith("-bin"):
            yield Metadatum(key, value.decode("latin-1"))
            continue
        # Values of one name may come joined.
        for part in value.split(b","):
            try:
                yield Metadatum(key, base64.b64decode(part.rstrip(b"=") + b"=" * (-len(part.rstrip(b"=")) % 4)))
            except binascii.Error:
                continue  # what is no base64 has no value to give


def to_send(pairs: Pairs) -> list[Header]:
    """Headers to send. Raises ValueError for a name or a value that cannot be one."""
    return [_header(key, value) for key, value in pairs]


def _header(key: str, value: str | bytes) -> Header:
    name = key.lower()
    if not _NAME.fullmatch(name):
        raise ValueError(f"{key!r} is no name for metadata: letters, digits, '_', '-' and '.' are")
    if name in RESERVED:
        raise ValueError(f"{key!r} is the transport's own and no name for metadata")
    if name.endswith("-bin"):
        if isinstance(value, str):
            raise ValueError(f"{key!r} is metadata of bytes and its value is a str")
        return name.encode(), base64.b64encode(value).rstrip(b"=")
    raw = value.encode("utf-8") if isinstance(value, str) else value
    if not _TEXT.fullmatch(raw):
        raise ValueError(f"the value of {key!r} is not printable ASCII; a name that ends with -bin takes any bytes")
    return name.encode(), raw.strip(b" ")
