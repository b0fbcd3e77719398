"""Answers recorded as the client target's inputs: a server that says what servers say, and some that say it wrong."""

from __future__ import annotations

from collections.abc import Callable

import frames
import h2.config
import h2.connection
import h2.events
from client import Client, Run
from frames import Frame
from steps import Kind, Step, input_of

HEAD = [(":status", "200"), ("content-type", "application/grpc")]
OK = [("grpc-status", "0")]


class Talk:
    """A server of the target, whose every step is kept."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.steps: list[Step] = []
        self.asked: list[int] = []  # streams that wait for their answer
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))

    def do(self, kind: Kind, data: bytes = b"") -> None:
        """Take a step, and hear what the client says to it."""
        self.steps.append(Step(kind, data))
        self.hear(self.run.take(self.steps[-1]))

    def hear(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.StreamEnded):
                self.asked.append(event.stream_id)

    def send(self, data: bytes = b"") -> None:
        self.do(Kind.RECEIVE, self.h2.data_to_send() + data)

    def reply(self, stream: int, body: bytes = b"ok", trailers: list[tuple[str, str]] = OK) -> None:
        self.h2.send_headers(stream, HEAD)
        self.h2.send_data(stream, b"\0" + len(body).to_bytes(4, "big") + body)
        self.h2.send_headers(stream, trailers, end_stream=True)


def every_way(talk: Talk) -> None:
    while talk.asked:
        stream = talk.asked.pop(0)
        match stream:
            case 1:
                talk.reply(stream, b"another")
            case 3:
                talk.h2.send_headers(stream, [*HEAD, ("grpc-status", "5"), ("grpc-message", "%E2%98")], end_stream=True)
            case 5:
                talk.h2.reset_stream(stream, 7)
            case 7:
                talk.h2.send_headers(stream, [(":status", "503")], end_stream=True)
            case 9:
                talk.h2.send_headers(stream, [(":status", "100")])
                talk.reply(stream, b"odd")
            case _:
                talk.reply(stream)
        talk.send()


def broken_messages(talk: Talk) -> None:
    for body in (b"", b"\0\0", b"\0\0\0\0\5ok", bytes(10)):
        stream = talk.asked.pop(0)
        talk.h2.send_headers(stream, HEAD)
        talk.h2.send_data(stream, body)
        talk.h2.send_headers(stream, OK, end_stream=True)
        talk.send()


def going_away(talk: Talk) -> None:
    talk.send(Frame(frames.GOAWAY, 0, 0, b"\x7f\xff\xff\xff" + bytes(4)).bytes())
    for stream in talk.asked:
        talk.reply(stream)
    talk.send(Frame(frames.GOAWAY, 0, 0, bytes(3) + b"\3" + bytes(4)).bytes())


def games(talk: Talk) -> None:
    stream, other = talk.asked[:2]
    talk.h2.ping(bytes(8))
    talk.h2.update_settings({4: 10, 3: 1, 1: 0})
    talk.send(Frame(frames.WINDOW_UPDATE, 0, stream, b"\0\0\1\0").bytes())
    talk.h2.send_headers(stream, HEAD)
    talk.h2.send_data(stream, b"\0\0\0\0\2o", pad_length=9)
    talk.send(Frame(0xEE, 1, stream, b"unknown").bytes())
    talk.h2.send_data(stream, b"k")
    talk.h2.send_headers(stream, [*OK, ("x", "y" * 200)], end_stream=True)
    whole = talk.h2.data_to_send()
    for at in range(0, len(whole), 11):
        talk.do(Kind.RECEIVE, whole[at : at + 11])
    block = talk.h2.encoder.encode([(name.encode(), value.encode()) for name, value in [*HEAD, *OK]])
    cut = Frame(frames.HEADERS, frames.END_STREAM, other, block[:4]).bytes()
    talk.send(cut + Frame(frames.CONTINUATION, frames.END_HEADERS, other, block[4:]).bytes())


def hung_up(talk: Talk) -> None:
    talk.h2.send_headers(talk.asked[0], HEAD)
    talk.send()
    talk.do(Kind.EOF)


def broken(talk: Talk) -> None:
    talk.send(Frame(frames.SETTINGS, 0, 0, b"x").bytes())


def no_http2(talk: Talk) -> None:
    talk.h2.data_to_send()
    talk.do(Kind.RECEIVE, b"HTTP/1.1 400 Bad Request\r\n\r\n")


ANSWERS: dict[str, Callable[[Talk], None]] = {
    one.__name__: one
    for one in (every_way, broken_messages, going_away, games, hung_up, broken, no_http2)
}  # fmt: skip


def record(target: Client, answer: Callable[[Talk], None], mode: int) -> bytes:
    """The input that stands for what such a server says."""
    run = Run(target, mode)
    talk = Talk(run)
    talk.h2.initiate_connection()
    talk.hear(run.begin())
    talk.send()
    answer(talk)
    run.end()
    return bytes([mode]) + input_of(talk.steps)
