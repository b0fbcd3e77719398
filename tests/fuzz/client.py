"""The load generator's client against servers that may send anything: real sockets, the server is the input.

The first byte says what kind of load it is.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from contextlib import suppress

from steps import Kind, Step, steps_of

from inferd._native.load import Generator
from inferd._native.tally import Slice

HEADERS = (
    (b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/S/M"), (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
)  # fmt: skip
REQUESTS = (b"first", b"second" * 50)
SLICE_NS = 100_000
LIMIT = 9
PLAIN, COMPARED, OPEN_LOOP, HASTY = (1 << bit for bit in range(4))  # plain answers are not compared


class Client:
    """The target. Its port serves all runs."""

    def __init__(self) -> None:
        name = f"\0inferd-fuzz-{os.getpid()}".encode()
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(name)
        self.listener.listen(64)
        self.listener.setblocking(False)
        self.address = struct.pack("=H", socket.AF_UNIX) + name

    def __call__(self, data: bytes) -> None:
        run = Run(self, data[0] if data else 0)
        run.begin()
        for step in steps_of(data[1:]):
            run.take(step)
        run.end()

    def close(self) -> None:
        self.listener.close()


class Run:
    """What one input does: a load of two connections, and the server at their other ends."""

    def __init__(self, target: Client, mode: int) -> None:
        self.listener = target.listener
        self.is_compared = bool(mode & COMPARED and not mode & PLAIN)
        self.peers: list[socket.socket] = []
        self.total = Slice()
        self.generator = Generator(
            target.address,
            HEADERS,
            REQUESTS,
            connections=2,
            streams=4,
            limit=LIMIT,
            interval_ns=SLICE_NS / 5 if mode & OPEN_LOOP else 0,
            timeout_ns=1_000_000 if mode & HASTY else 0,
            answers=[(b"ok", b"another"), (b"ok",)] if self.is_compared else None,
            grpc=not mode & PLAIN,
        )

    def begin(self) -> bytes:
        """Have the connections made; what the client says on the first one."""
        while len(self.peers) < 2:
            self.slice()
            with suppress(BlockingIOError):
                while True:
                    self.peers.append(self.listener.accept()[0])
                    self.peers[-1].setblocking(False)
        self.slice()
        return self.heard()

    def take(self, step: Step) -> bytes:
        """Do what a server does; what the client then says on the first connection."""
        peer = self.peers[step.slot]
        with suppress(OSError):  # a socket that is gone takes nothing
            match step.kind:
                case Kind.RECEIVE | Kind.RECEIVE_COPY:
                    peer.send(step.data)
                case Kind.EOF:
                    peer.shutdown(socket.SHUT_WR)
                case Kind.LOST:
                    peer.close()
        if step.at_once:
            return b""
        self.slice()
        return self.heard()

    def slice(self) -> None:
        self.total.merge(self.generator.run(time.monotonic_ns() + SLICE_NS))

    def heard(self) -> bytes:
        found = []
        for peer in self.peers:
            data = b""
            with suppress(OSError):
                while more := peer.recv(65536):
                    data += more
            found.append(data)
        return found[0]

    def end(self) -> None:
        """Leave, and see that what was counted adds up."""
        self.slice()
        total, finished = self.total, self.generator.finished
        self.generator.close()
        for peer in self.peers:
            peer.close()
        with suppress(BlockingIOError):
            while True:
                self.listener.accept()[0].close()
        assert total.sent == total.ok + sum(total.failures.values()) + total.in_flight <= LIMIT
        assert finished == (total.sent == LIMIT and total.in_flight == 0)
        assert total.ok == total.latency.count
        assert set(total.messages) == set(total.failures)
        if self.is_compared:
            assert total.ok == total.right + total.unjudged + len(total.odd)
