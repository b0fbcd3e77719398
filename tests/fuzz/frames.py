"""HTTP/2 read by hand: what a client has asked, and whether what it was told is whole, in order and ends once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import hpack
import hyperframe.frame as hf

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 1, 1, 4, 8, 32
INITIAL_WINDOW_SIZE = 4


class Frame(NamedTuple):
    """One frame as it is on the wire, whatever is in it."""

    kind: int
    flags: int
    stream: int
    payload: bytes = b""

    def bytes(self) -> bytes:
        head = len(self.payload).to_bytes(3, "big") + bytes([self.kind, self.flags])
        return head + self.stream.to_bytes(4, "big") + self.payload


def split(data: bytes) -> tuple[list[Frame], bytes]:
    """The whole frames at the start of some bytes, and what is left."""
    found = []
    while len(data) >= 9 and len(data) >= (end := 9 + int.from_bytes(data[:3], "big")):
        found.append(Frame(data[3], data[4], int.from_bytes(data[5:9], "big"), data[9:end]))
        data = data[end:]
    return found, data


# --- what a client sent ----------------------------------------------------------------------------------


@dataclass
class Asked:
    """A stream as the client's bytes have it."""

    window: int = 0
    is_whole: bool = False
    is_reset: bool = False
    is_orderly: bool = True  # nothing came after its end


@dataclass
class Client:
    """All that a client sent, as long as it keeps to the order of HTTP/2. What it does after that is not read."""

    streams: dict[int, Asked] = field(default_factory=dict)
    initial_window: int = 65535
    window: int = 65535
    is_orderly: bool = True


def asked(data: bytes) -> Client:
    """Read a client's bytes from its preface on."""
    client = Client()
    client.is_orderly = data.startswith(PREFACE) and _read(client, data[len(PREFACE) :])
    for stream in client.streams.values():
        stream.window += client.initial_window
    return client


def _read(client: Client, data: bytes) -> bool:
    """False once something is out of order."""
    in_headers = 0
    ends = False
    for frame in split(data)[0]:
        known = client.streams.get(frame.stream)
        if in_headers and (frame.kind, frame.stream) != (CONTINUATION, in_headers):
            return False
        if frame.kind == HEADERS and known is None:
            if frame.stream % 2 == 0 or frame.stream < max(client.streams, default=0):
                return False
            known = client.streams[frame.stream] = Asked()
        elif frame.stream and known is None and frame.kind <= CONTINUATION and frame.kind != PRIORITY:
            if frame.stream > max(client.streams, default=0):
                return False
            continue  # of a stream that was never opened and now counts as closed
        if known is None:
            if frame.kind == WINDOW_UPDATE:
                client.window += int.from_bytes(frame.payload, "big")
            elif frame.kind == SETTINGS and not frame.flags & ACK:
                _set(client, frame.payload)
        elif frame.kind == WINDOW_UPDATE:
            known.window += int.from_bytes(frame.payload, "big")
        elif frame.kind == RST_STREAM:
            known.is_reset = True
        elif frame.kind in (DATA, HEADERS, CONTINUATION):
            if frame.kind != CONTINUATION:
                known.is_orderly &= not known.is_whole
                ends = bool(frame.flags & END_STREAM)
            in_headers = frame.stream if frame.kind != DATA and not frame.flags & END_HEADERS else 0
            known.is_whole |= ends and not in_headers
    return not in_headers


def _set(client: Client, payload: bytes) -> None:
    for at in range(0, len(payload) - 5, 6):
        if int.from_bytes(payload[at : at + 2], "big") == INITIAL_WINDOW_SIZE:
            client.initial_window = int.from_bytes(payload[at + 2 : at + 6], "big")


# --- what a server answered ------------------------------------------------------------------------------


@dataclass
class Told:
    """A stream as the server's bytes have it."""

    heads: list[dict[str, str]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    is_ended: bool = False
    reset: int | None = None  # with which error

    def ends(self) -> int:
        """How often it ends. A reset without an error that follows the end only asks for no more of the request."""
        return self.is_ended + (self.reset is not None and not (self.is_ended and self.reset == 0))


@dataclass
class Server:
    """All that a server sent."""

    streams: dict[int, Told] = field(default_factory=dict)
    goaways: list[tuple[int, int]] = field(default_factory=list)  # last stream, error
    sent: int = 0


def told(data: bytes) -> Server:
    """Read a server's bytes. AssertionError for whatever no server may send."""
    server = Server()
    decoder = hpack.Decoder(max_header_list_size=1 << 20)
    for frame, block in _whole(data):
        if isinstance(frame, hf.GoAwayFrame):
            server.goaways.append((frame.last_stream_id, frame.error_code))
        if frame.stream_id == 0 or isinstance(frame, hf.WindowUpdateFrame):
            continue
        stream = server.streams.setdefault(frame.stream_id, Told())
        if isinstance(frame, hf.RstStreamFrame):
            assert stream.reset is None, f"stream {frame.stream_id} is reset twice"
            stream.reset = frame.error_code
            continue
        assert not stream.is_ended, f"{frame} follows the end of its stream"
        assert stream.reset is None, f"{frame} follows the reset of its stream"
        if isinstance(frame, hf.DataFrame):
            server.sent += frame.flow_controlled_length
            stream.body += frame.data
            assert len(stream.heads) == 1, f"{frame} is not between headers and trailers"
        else:
            assert isinstance(frame, hf.HeadersFrame), f"a server does not send {frame}"
            stream.heads.append(dict(decoder.decode(block)))
            assert len(stream.heads) == 1 or "END_STREAM" in frame.flags, f"{frame} does not end its stream"
        stream.is_ended = "END_STREAM" in frame.flags
        if stream.is_ended:
            _check_end(stream)
    return server


def _whole(data: bytes) -> Iterator[tuple[hf.Frame, bytes]]:
    """Each frame as a strict reader has it, and the whole header block of those that begin one."""
    view = memoryview(data)
    begun: hf.HeadersFrame | None = None
    block = b""
    at = 0
    while at < len(view):
        assert len(view) - at >= 9, "the last frame is cut short"
        frame, size = hf.Frame.parse_frame_header(view[at : at + 9], strict=True)
        assert len(view) - at >= 9 + size, "the last frame is cut short"
        frame.parse_body(view[at + 9 : at + 9 + size])
        at += 9 + size
        if isinstance(frame, hf.HeadersFrame | hf.ContinuationFrame):
            assert isinstance(frame, hf.HeadersFrame) == (begun is None), f"{frame} comes in the middle of headers"
            begun = begun or frame
            assert begun.stream_id == frame.stream_id, f"{frame} goes on with another stream's headers"
            block += frame.data
            if "END_HEADERS" in frame.flags:
                yield begun, block
                begun, block = None, b""
        else:
            assert begun is None, f"{frame} comes in the middle of headers"
            yield frame, b""
    assert begun is None, "the last headers are cut short"


def _check_end(stream: Told) -> None:
    """What was told is whole: a status, and before it whole messages."""
    first, last = stream.heads[0], stream.heads[-1]
    if first[":status"] != "200":
        assert len(stream.heads) == 1, "an HTTP error is one HEADERS frame"
        return
    assert first["content-type"] == "application/grpc"
    assert 0 <= int(last["grpc-status"]) <= 16
    assert len(stream.heads) == 1 or "grpc-status" not in first
    body = bytes(stream.body)
    while body:
        size = 5 + int.from_bytes(body[1:5], "big")
        assert body[0] in (0, 1), "a message's compressed flag is neither 0 nor 1"
        assert len(body) >= size, "a status follows half a message"
        body = body[size:]
