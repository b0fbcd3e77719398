"""gzip and deflate of single messages, after grpc/grpc doc/compression.md."""

from __future__ import annotations

import zlib
from typing import Final

import grpc

from inferd.errors import Garbled, MessageTooLarge

# What zlib calls the two formats: gzip is RFC 1952, deflate RFC 1950.
_WINDOW_BITS: Final = {"gzip": 31, "deflate": 15}
NAMES: Final = {grpc.Compression.Gzip: "gzip", grpc.Compression.Deflate: "deflate"}
ACCEPTED: Final = b"identity,deflate,gzip"


def accepts(headers: list[tuple[bytes, bytes]], encoding: str) -> bool:
    """Whether a client that sent these headers reads what is compressed so."""
    listed = dict(headers).get(b"grpc-accept-encoding", b"")
    return encoding.encode() in [one.strip() for one in listed.split(b",")]


def unpacked(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """The message that was packed. Raises MessageTooLarge beyond `max_bytes` and Garbled if it cannot be unpacked."""
    unpacker = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        whole = unpacker.decompress(body, max_bytes + 1)
    except zlib.error:
        raise Garbled(f"a message says that it is {encoding}, and is not") from None
    if len(whole) > max_bytes:
        raise MessageTooLarge(f"a message is larger than {max_bytes} bytes once unpacked (grpc.max_message_bytes)")
    if not unpacker.eof or unpacker.unused_data:
        raise Garbled(f"a message says that it is {encoding}, and ends too soon or too late")
    return whole


def packed(body: bytes, encoding: str) -> bytes | None:
    """The message packed, or None if that makes it no smaller."""
    packer = zlib.compressobj(wbits=_WINDOW_BITS[encoding])
    small = packer.compress(body) + packer.flush()
    return small if len(small) < len(body) else None
