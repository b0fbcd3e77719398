"""Conversations recorded as the receive target's inputs: real clients, and one that writes what these never would."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import frames
import h2.config
import h2.connection
import h2.events
import h2.settings
from frames import Frame
from handmade import message
from receive import Loop, Run
from served import SERVICE
from steps import Kind, Step, input_of

from inferd.proto import inference_pb2 as pb

PSEUDO = ((":method", "POST"), (":scheme", "http"), (":authority", "a"))
HEADERS = (("te", "trailers"), ("content-type", "application/grpc"))
Settings = h2.settings.SettingCodes


class Talk:
    """A client of the target, whose every step is kept."""

    def __init__(self, run: Run, slot: int = 0) -> None:
        self.run, self.slot = run, slot
        self.steps: list[Step] = []
        self.seen = 0
        self.follows = True  # false once h2 would not understand what comes
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(validate_outbound_headers=False))

    async def do(self, kind: Kind, data: bytes = b"") -> None:
        step = Step(kind, data, self.slot)
        self.steps.append(step)
        self.run.take(step)
        await self.run.loop.idle()
        socket = self.run.slots[self.slot]
        if socket is not None and not socket.is_stalled:
            new, self.seen = bytes(socket.written[self.seen :]), len(socket.written)
            for event in self.h2.receive_data(new) if self.follows else ():
                if isinstance(event, h2.events.DataReceived) and not self.h2.streams[event.stream_id].closed:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    async def send(self, data: bytes = b"", *, pieces: int = 0) -> None:
        """Send what waits, then these bytes; in pieces of so many bytes if that is said."""
        data = self.h2.data_to_send() + data
        for at in range(0, len(data), pieces or len(data) or 1):
            await self.do(Kind.RECEIVE, data[at : at + (pieces or len(data))])
        if waiting := self.h2.data_to_send():
            await self.do(Kind.RECEIVE_COPY, waiting)

    def call(self, method: str, *more: tuple[str, str], end: bool = False, **priority: Any) -> int:
        stream = self.h2.get_next_available_stream_id()
        headers = [*PSEUDO, (":path", f"/{SERVICE}/{method}"), *HEADERS, *more]
        self.h2.send_headers(stream, headers, end_stream=end, **priority)
        return stream

    def message(
        self, stream: int, body: bytes, *, end: bool = True, packed: bool = False, pad: int | None = None
    ) -> None:
        data = bytes([packed]) + len(body).to_bytes(4, "big") + body
        self.h2.send_data(stream, data, end_stream=end, pad_length=pad)

    def ends(self) -> dict[int, str]:
        """How calls have ended."""
        socket = self.run.slots[self.slot]
        if socket is None or not self.seen:
            return {}
        ends = {}
        for number, stream in frames.told(bytes(socket.written)).streams.items():
            if stream.is_ended:
                ends[number] = stream.heads[-1].get("grpc-status", stream.heads[0][":status"])
        return ends


def infer(rows: int = 1, width: int = 2, name: str = "m") -> bytes:
    made = message(("x", "FP32", [rows, width], bytes(4 * rows * width)))
    made.model_name = name
    return made.SerializeToString()


def typed() -> bytes:
    made = pb.ModelInferRequest(model_name="m", id="typed")
    made.inputs.add(name="x", datatype="FP32", shape=[2, 2]).contents.fp32_contents.extend([1, 2, 3, 4])
    made.outputs.add(name="y")
    return made.SerializeToString()


# --- conversations, each with how its calls must end -----------------------------------------------------


async def unary(talk: Talk) -> dict[int, str]:
    one = talk.call("Echo", ("x-bin", "AAEC"), ("grpc-timeout", "1H"), ("grpc-accept-encoding", "gzip, deflate"))
    talk.message(one, b"abc" * 50)
    await talk.send()
    two = talk.call("Echo", ("x-bin", "AA==,AQ"), ("x", "plain"))
    talk.message(two, b"")
    await talk.send(pieces=7)
    return {one: "0", two: "0"}


async def all_kinds(talk: Talk) -> dict[int, str]:
    streams = [talk.call(kind) for kind in ("Chat", "Collect", "Spread", "Fail")]
    for stream in streams[:2]:
        talk.message(stream, b"one", end=False)
    await talk.send()
    for stream in streams:
        talk.message(stream, "zwei \u2603%".encode())
    await talk.send()
    while streams[2] not in talk.ends():
        await talk.send()
    return {streams[0]: "0", streams[1]: "0", streams[2]: "0", streams[3]: "10"}


async def packed(talk: Talk) -> dict[int, str]:
    body = infer(4, 50)
    one, two = talk.call("Infer", ("grpc-encoding", "gzip")), talk.call("Echo", ("grpc-encoding", "deflate"))
    talk.message(one, gzip.compress(body, mtime=0), packed=True)
    talk.message(two, zlib.compress(body), packed=True)
    three = talk.call("Chat", ("grpc-encoding", "gzip"), ("grpc-accept-encoding", "gzip"))
    talk.message(three, gzip.compress(b"x" * 30_000, mtime=0), packed=True, end=False)
    talk.message(three, b"not packed")
    four = talk.call("Echo", ("grpc-encoding", "gzip"))
    talk.message(four, gzip.compress(b"x" * 40_000, mtime=0), packed=True)
    five = talk.call("Infer", ("grpc-encoding", "gzip"))
    talk.message(five, b"is no gzip", packed=True)
    await talk.send()
    await talk.do(Kind.SETTLE)
    await talk.do(Kind.TAKE)
    await talk.do(Kind.SETTLE)
    return {one: "0", two: "0", three: "0", four: "8", five: "13"}


async def batches(talk: Talk) -> dict[int, str]:
    streams = [talk.call("Infer") for _ in range(5)]
    for stream, body in zip(streams, (infer(), infer(2), typed(), infer(1, 3), infer(20)), strict=True):
        talk.message(stream, body)
    await talk.send()
    for _ in range(3):
        await talk.do(Kind.TAKE)
    await talk.do(Kind.SETTLE, b"\2")
    return dict(zip(streams, ("0", "13", "0", "0", "8"), strict=True))


async def refusals(talk: Talk) -> dict[int, str]:
    bodies = infer(name="nobody"), b"\xff", infer(name="other"), infer(0, 1), infer()
    streams = []
    for body in bodies:
        streams.append(talk.call("Infer"))
        talk.message(streams[-1], body)
    await talk.send()
    await talk.do(Kind.TURN)
    streams.append(talk.call("Infer"))
    talk.message(streams[-1], infer(name="other"))
    await talk.send()
    for _ in range(2):
        await talk.do(Kind.TAKE)
    await talk.do(Kind.SETTLE)
    return dict(zip(streams, ("5", "3", "5", "0", "0", "14"), strict=True))


async def resets(talk: Talk) -> dict[int, str]:
    queued, running, open_, kept = [talk.call(kind) for kind in ("Infer", "Infer", "Chat", "Infer")]
    talk.message(running, infer())
    talk.message(kept, infer())
    await talk.send()
    await talk.do(Kind.TAKE)
    talk.message(queued, infer())
    talk.message(open_, b"x", end=False)
    await talk.send()
    for stream in (queued, running, open_):
        talk.h2.reset_stream(stream, 8)
    await talk.send()
    await talk.do(Kind.SETTLE)
    return {kept: "0"}


async def odd_frames(talk: Talk) -> dict[int, str]:
    block = talk.h2.encoder.encode([*PSEUDO, (":path", f"/{SERVICE}/Echo"), *HEADERS, ("x", "y" * 300)])
    await talk.send()
    talk.follows = False
    pad = b"\7" + b"\0\0\0\0\xff" + block + bytes(7)
    sent = Frame(frames.HEADERS, frames.PADDED | frames.HAS_PRIORITY, 1, pad).bytes()
    cut = Frame(frames.HEADERS, 0, 3, block[:5]).bytes() + Frame(frames.CONTINUATION, 0, 3, block[5:40]).bytes()
    cut += Frame(frames.CONTINUATION, frames.END_HEADERS, 3, block[40:]).bytes()
    sent += Frame(frames.CONTINUATION, frames.END_HEADERS, 1).bytes() + cut
    body = b"\0\0\0\0\3abc"
    sent += Frame(frames.DATA, frames.PADDED, 1, b"\3" + body[:4] + bytes(3)).bytes()
    sent += Frame(frames.DATA, 0, 3).bytes() + Frame(0xEE, 255, 1, b"unknown").bytes()
    sent += Frame(frames.DATA, frames.PADDED | frames.END_STREAM, 1, b"\0" + body[4:]).bytes()
    sent += Frame(frames.PRIORITY, 0, 3, b"\x80\0\0\1\1").bytes()
    sent += Frame(frames.DATA, frames.END_STREAM, 3, body).bytes() + Frame(frames.PING, 0, 0, bytes(8)).bytes()
    await talk.send(sent)
    return {1: "0", 3: "0"}


async def client_trailers_and_priorities(talk: Talk) -> dict[int, str]:
    one = talk.call("Collect", priority_weight=200, priority_exclusive=True)
    two = talk.call("Chat", priority_depends_on=one)
    talk.message(one, b"abc", end=False, pad=20)
    talk.h2.send_headers(one, [("x-trailer", "z")], end_stream=True)
    talk.h2.prioritize(two, weight=1, depends_on=one, exclusive=True)
    talk.message(two, b"defg", pad=0)
    await talk.send()
    return {one: "0", two: "0"}


async def windows_and_settings(talk: Talk) -> dict[int, str]:
    talk.h2.update_settings({Settings.INITIAL_WINDOW_SIZE: 1, Settings.HEADER_TABLE_SIZE: 0})
    one = talk.call("Echo")
    talk.message(one, b"0123456789" * 3)
    await talk.send()
    for more in (2, 4, 1):
        talk.h2.increment_flow_control_window(more, one)
        await talk.send()
    talk.h2.update_settings({Settings.MAX_FRAME_SIZE: 20_000, Settings.HEADER_TABLE_SIZE: 4096})
    talk.h2.update_settings({Settings.INITIAL_WINDOW_SIZE: 100_000, Settings.ENABLE_PUSH: 0})
    talk.h2.ping(b"12345678")
    await talk.send()  # the library takes larger frames only in a read after that of the acknowledgement
    two = talk.call("Spread")
    talk.message(two, b"x" * 3000)
    await talk.send()
    talk.h2.increment_flow_control_window(100_000)
    await talk.send()
    return {one: "0", two: "0"}


async def big_headers(talk: Talk) -> dict[int, str]:
    many = talk.call("Echo", *((f"k{number}", "v") for number in range(30)))
    talk.message(many, b"")
    large = talk.call("Echo", ("k", "v" * 3000))
    talk.message(large, b"")
    await talk.send()
    again = talk.call("Echo", ("k", "v" * 1000))
    talk.message(again, b"")
    await talk.send(pieces=100)
    return {many: "0", large: "8", again: "0"}


async def leaving(talk: Talk) -> dict[int, str]:
    one = talk.call("Infer")
    talk.message(one, infer())
    await talk.send()
    talk.follows = False
    await talk.do(Kind.GO_AWAY)
    await talk.send(Frame(frames.PING, frames.ACK, 0, bytes(8)).bytes())
    await talk.do(Kind.HOUSEKEEPING)
    await talk.do(Kind.TAKE)
    await talk.do(Kind.SETTLE)
    return {one: "0"}


async def cut(talk: Talk) -> dict[int, str]:
    one, two = talk.call("Infer"), talk.call("Chat")
    talk.message(one, infer())
    talk.message(two, b"x", end=False)
    await talk.send()
    await talk.do(Kind.CUT, b"the server is stopping")
    return {one: "14", two: "14"}


async def deadlines(talk: Talk) -> dict[int, str]:
    timeouts = "1n", "99999999u", "50m", "9S", "99999999M", "99999999H", "x", "1D"
    streams = [talk.call("Infer", ("grpc-timeout", timeout)) for timeout in timeouts]
    for stream in streams[:-1]:
        talk.message(stream, infer())
    await talk.send()
    for exponent in (20, 30, 36, 50):
        await talk.do(Kind.LATER, bytes([exponent]))
        await talk.do(Kind.TAKE)
    await talk.do(Kind.SETTLE)
    return {streams[0]: "4", streams[2]: "4", streams[6]: "0"}


async def slow_reader(talk: Talk) -> dict[int, str]:
    await talk.do(Kind.STALL)
    talk.h2.update_settings({Settings.INITIAL_WINDOW_SIZE: 1 << 20})
    talk.h2.increment_flow_control_window(1 << 20)
    streams = [talk.call("Spread") for _ in range(2)]
    for stream in streams:
        talk.message(stream, b"abc")
    await talk.send()
    talk.h2.ping(b"12345678")
    await talk.send()
    await talk.do(Kind.READ)
    return dict.fromkeys(streams, "0")


async def no_grpc(talk: Talk) -> dict[int, str]:
    headers = [
        [(":method", "GET"), *PSEUDO[1:], (":path", f"/{SERVICE}/Echo"), *HEADERS],
        [*PSEUDO, (":path", f"/{SERVICE}/Echo"), ("content-type", "text/html")],
        [*PSEUDO, (":path", f"/{SERVICE}/Nothing\u00e9%"), *HEADERS],
        [*PSEUDO, (":path", f"/{SERVICE}/Echo"), *HEADERS, ("grpc-encoding", "br")],
    ]
    for number, one in enumerate(headers):
        talk.h2.send_headers(1 + 2 * number, one, end_stream=True)
    await talk.send()
    return {1: "405", 3: "415", 5: "12", 7: "12"}


async def no_single_message(talk: Talk) -> dict[int, str]:
    found = {}
    for method in ("Infer", "Echo"):
        for data in (
            b"\0\0\0\0\0" * 2,
            b"",
            b"\0\0",
            b"\0\0\0\0\3a",
            b"\2\0\0\0\0",
            b"\1\0\0\0\0",
            b"\0\xff\xff\xff\xff",
        ):
            stream = talk.call(method)
            talk.h2.send_data(stream, data, end_stream=True)
            await talk.send()
            found[stream] = "8" if data[1:2] == b"\xff" else "13"
    return found


async def floods(talk: Talk) -> dict[int, str]:
    ping = Frame(frames.PING, 0, 0, bytes(8)).bytes()
    one = talk.call("Echo")
    await talk.send(ping * 150)
    await talk.do(Kind.HOUSEKEEPING)
    await talk.send(Frame(frames.DATA, 0, one).bytes() * 100)
    await talk.send(Frame(frames.WINDOW_UPDATE, 0, one, b"\0\0\0\1").bytes() * 101)
    return {}


async def rapid_resets(talk: Talk) -> dict[int, str]:
    for _ in range(20):
        stream = talk.call("Infer")
        talk.message(stream, infer())
        talk.h2.reset_stream(stream)
    more = [talk.call("Chat") for _ in range(12)]
    await talk.send()
    for stream in more[:8]:
        talk.message(stream, b"")
    await talk.send()
    return dict.fromkeys(more[:8], "0")


async def gone(talk: Talk) -> dict[int, str]:
    for method in ("Infer", "Chat", "Collect", "Spread"):
        talk.message(talk.call(method), infer(), end=method in ("Infer", "Spread"))
    await talk.send()
    await talk.do(Kind.TAKE)
    await talk.do(Kind.LOST, b"\1")
    await talk.do(Kind.SETTLE)
    return {}


async def half_closed(talk: Talk) -> dict[int, str]:
    talk.message(talk.call("Infer"), infer())
    await talk.send()
    await talk.do(Kind.EOF)
    return {}


def no_http2(data: bytes) -> Callable[[Talk], Awaitable[dict[int, str]]]:
    async def conversation(talk: Talk) -> dict[int, str]:
        talk.follows = False
        await talk.do(Kind.RECEIVE, data)
        return {}

    return conversation


CONVERSATIONS: dict[str, Callable[[Talk], Awaitable[dict[int, str]]]] = {
    one.__name__: one
    for one in (
        unary, all_kinds, packed, batches, refusals, resets, odd_frames, client_trailers_and_priorities,
        windows_and_settings, big_headers, leaving, cut, deadlines, slow_reader, no_grpc, no_single_message, floods,
        rapid_resets, gone, half_closed,
    )
} | {
    "http1": no_http2(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"),
    "tls": no_http2(b"\x16\x03\x01\x02\x00\x01"),
    "http3": no_http2(b"PRI * HTTP/3"),
}  # fmt: skip


def record(loop: Loop, conversation: Callable[[Talk], Awaitable[dict[int, str]]]) -> bytes:
    """The input that stands for a conversation. AssertionError unless its calls end as it says."""

    async def hold() -> bytes:
        run = Run(loop)
        talk = Talk(run)
        talk.h2.initiate_connection()
        expected = await conversation(talk)
        ends = talk.ends() if expected else {}
        assert {stream: ends.get(stream) for stream in expected} == expected, ends
        await run.end()
        return input_of(talk.steps)

    return loop.run_until_complete(hold())
