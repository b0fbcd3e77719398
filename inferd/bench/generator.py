"""Offers a load to a server: threads of compiled clients, and what they saw, slice by slice."""

from __future__ import annotations

import queue
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from inferd._native import load as native
from inferd._native.tally import Slice
from inferd.bench.result import Load
from inferd.version import version

MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is sent, to whom.

    `requests` are serialized messages, sent in turn. With `answers`, every reply is compared byte by byte with the
    answers accepted for its request; `answers[i]` may start empty. A reply that equals none is an odd one: the
    caller of `Generator.slices` judges it, see `Slice.odd`, and may accept it from then on.
    """

    address: str
    requests: tuple[bytes, ...]
    method: str = MODEL_INFER
    metadata: tuple[tuple[str, str], ...] = ()
    timeout_ns: int = 0
    answers: tuple[tuple[bytes, ...], ...] | None = None
    # Without gRPC any HTTP 200 is an answer: for servers of plain files.
    grpc: bool = True

    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The headers of every request, as grpc/grpc doc/PROTOCOL-HTTP2.md orders them."""
        local = self.address.startswith("unix:")
        pairs = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", self.method),
            (":authority", "localhost" if local else self.address),
            ("te", "trailers"),
        ]
        if self.timeout_ns:
            # At most eight digits; nanoseconds beyond that are not missed.
            pairs.append(("grpc-timeout", f"{max(1, self.timeout_ns // 1_000_000)}m"))
        pairs += [("content-type", "application/grpc"), ("user-agent", f"inferd-bench/{version()}"), *self.metadata]
        return tuple((name.encode("ascii"), value.encode("latin-1")) for name, value in pairs)


class Generator:
    """A load being offered. Use as a context manager; connections open on entry and close on exit."""

    def __init__(
        self,
        traffic: Traffic,
        load: Load,
        *,
        threads: int = 1,
        slice_ns: int = 100_000_000,
        limit: int = 0,
        seed: int = 0,
    ) -> None:
        """With a `limit`, send so many requests in all and stop when the last one has ended.

        Connections and limit are dealt out to the threads; there are never more threads than either.
        """
        self._traffic, self._load = traffic, load
        self._threads = min(threads, load.connections, limit or threads)
        self._slice_ns, self._limit, self._seed = slice_ns, limit, seed
        self._natives: list[native.Generator] = []
        self._workers: list[threading.Thread] = []
        self._made: list[queue.SimpleQueue[Slice | BaseException | None]] = []
        self._stopping = threading.Event()

    def __enter__(self) -> Self:
        """Connect. Raises OSError if nobody listens there, or if the address makes no sense."""
        address = _reach(self._traffic.address)
        start_ns = time.monotonic_ns()
        interval_ns = 1e9 / self._load.rate if self._load.rate else 0.0
        for index in range(self._threads):
            self._natives.append(
                native.Generator(
                    address,
                    self._traffic.headers(),
                    self._traffic.requests,
                    connections=_share(self._load.connections, self._threads, index),
                    streams=self._load.streams,
                    interval_ns=interval_ns * self._threads,
                    poisson=self._load.arrivals == "poisson",
                    seed=self._seed * self._threads + index,
                    # Evenly between each other.
                    first_due_ns=start_ns + int(interval_ns * index),
                    limit=_share(self._limit, self._threads, index),
                    timeout_ns=self._traffic.timeout_ns,
                    answers=self._traffic.answers,
                    grpc=self._traffic.grpc,
                )
            )
            self._made.append(queue.SimpleQueue())
        for index in range(self._threads):
            worker = threading.Thread(target=self._work, args=(index, start_ns), name=f"load-{index}", daemon=True)
            self._workers.append(worker)
            worker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        for worker in self._workers:
            worker.join()
        for one in self._natives:
            one.close()

    def _work(self, index: int, start_ns: int) -> None:
        # Nothing but this runs between two slices, so that answers are not kept waiting.
        generator, made = self._natives[index], self._made[index]
        until_ns = start_ns
        try:
            while not (generator.finished or self._stopping.is_set()):
                until_ns += self._slice_ns
                made.put(generator.run(until_ns))
        except BaseException as err:
            made.put(err)
        else:
            made.put(None)

    def accept(self, request: int, answer: bytes) -> None:
        """From the next slice on this reply to request number `request` is a right one."""
        for one in self._natives:
            one.accept(request, answer)

    def slices(self) -> Iterator[Slice]:
        """What happened, one merged Slice per `slice_ns`, for as long as the caller asks or until the limit.

        The last slice of a limit ends early. Raises what a thread raised.
        """
        running = list(self._made)
        while running:
            merged: Slice | None = None
            for made in tuple(running):
                item = made.get()
                if isinstance(item, BaseException):
                    raise item
                if item is None:
                    running.remove(made)
                elif merged is None:
                    merged = item
                else:
                    merged.merge(item)
            if merged is not None:
                yield merged


def _share(total: int, parts: int, index: int) -> int:
    return total // parts + (index < total % parts)


def _reach(address: str) -> bytes:
    """The socket address that answers to HOST:PORT, [IPV6]:PORT or unix:PATH, as the kernel takes it.

    Raises OSError if nobody listens there.
    """
    if address.startswith("unix:"):
        path = address.removeprefix("unix:").removeprefix("//")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(path)
        return struct.pack("=H", socket.AF_UNIX) + path.encode() + b"\0"
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise OSError(f"{address} is not HOST:PORT, [IPV6]:PORT or unix:PATH")
    with socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S) as probe:
        peer = probe.getpeername()
        if probe.family == socket.AF_INET6:
            packed = socket.inet_pton(socket.AF_INET6, peer[0].partition("%")[0])
            return (
                struct.pack("=H", socket.AF_INET6)
                + struct.pack("!HI16s", peer[1], peer[2], packed)
                + struct.pack("=I", peer[3])
            )
        return struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", peer[1], socket.inet_aton(peer[0]))
