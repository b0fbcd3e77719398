"""One entrant's turn in a round: continued, warmed up, measured, paused again."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Protocol

from bench.peers import Peer
from bench.processes import Group, Meter
from bench.result import Kind, Turn
from bench.works import Prepared
from inferd.bench.generator import Generator, Traffic
from inferd.bench.result import Failure, Load
from inferd.bench.window import Window
from inferd.errors import Code

ALONE: Final = Load(connections=1, streams=1)
SLICE_NS: Final = 20_000_000
# Of the time that is measured: caches and windows refill, and a paused server's threads wake.
WARMUP_SHARE: Final = 0.25
ALONE_SHARE: Final = 0.5
# So much longer than planned, if not one request has ended before.
PATIENCE_S: Final = 30.0
LAST_WORDS_S: Final = 1.0


class Contestant(Protocol):
    """Whatever takes turns."""

    @property
    def name(self) -> str:
        """As in tables."""
        ...

    @property
    def kind(self) -> Kind:
        """What its figures mean."""
        ...

    def turn(self, number: int, seconds: float) -> Turn:
        """Its figures of one round. Raises OSError if it is not there any more."""
        ...


@dataclass(slots=True)
class Offered:
    """What a load came to, and what it cost the server meanwhile."""

    window: Window
    cpu_ns: Counter[str] = field(default_factory=Counter)


def offer(traffic: Traffic, load: Load, group: Group, seconds: float) -> Offered:
    """Offer a load for so long, after a warm-up. Raises OSError if nobody listens.

    The figures reach from one slice in which requests ended to another: a window cut in the midst of long runs
    would count one too many or too few.
    """
    meter = Meter(group)
    with Generator(traffic, load, slice_ns=SLICE_NS) as generator:
        slices = generator.slices()
        begun_ns = next(slices).end_ns
        warm_ns = begun_ns + int(seconds * WARMUP_SHARE * 1e9)
        found: Offered | None = None
        start, unended = Counter[str](), Window(warm_ns, warm_ns)
        for part in slices:
            ended = part.ok + sum(part.failures.values())
            if not ended and group.ended() is not None:
                break
            patient = part.end_ns - warm_ns < (seconds + PATIENCE_S) * 1e9
            if part.end_ns < warm_ns or (found is None and not ended and patient):
                continue
            if found is None:
                found, start = Offered(Window(part.end_ns, part.end_ns)), meter.read_ns()
                continue
            unended.add(part)
            if ended:
                # Slices in which nothing ended belong to the one that follows them.
                found.window.add(unended)
                found.cpu_ns = meter.read_ns() - start
                unended = Window(part.end_ns, part.end_ns)
            enough = part.end_ns - found.window.start_ns >= seconds * 1e9
            if enough and (found.window.ended or not patient):
                break
    return found or Offered(Window(warm_ns, warm_ns))


@dataclass(slots=True)
class Server:
    """A running server of a peer. Paused, except in its turns."""

    peer: Peer
    work: Prepared
    group: Group
    address: str

    @property
    def name(self) -> str:
        """The peer's."""
        return self.peer.name

    @property
    def kind(self) -> Kind:
        """The peer's."""
        return self.peer.kind

    def turn(self, number: int, seconds: float) -> Turn:
        """Under load, then with one request in flight. Raises OSError if the server has ended."""
        traffic = Traffic(self.address, (self.work.request,), grpc=self.peer.grpc)
        self.group.resume()
        try:
            loaded = offer(traffic, self.work.work.loaded, self.group, seconds)
            alone = offer(traffic, ALONE, self.group, seconds * ALONE_SHARE)
            rss_bytes = self.group.rss_bytes()
        except OSError as err:
            # Its port closes before the process is gone.
            raise OSError(self.group.ended(LAST_WORDS_S) or str(err)) from err
        finally:
            self.group.pause()
        if (how := self.group.ended()) is not None:
            raise OSError(how)
        return _turn(number, loaded, alone, rss_bytes, len(self.work.request))


def _turn(number: int, loaded: Offered, alone: Offered, rss_bytes: int, request_bytes: int) -> Turn:
    window, cpu_ns = loaded.window, loaded.cpu_ns.total()
    failures = _failures(window, alone.window)
    if not window.ok:
        return Turn(round=number, seconds=window.seconds, ok=0, failures=failures, rss_bytes=rss_bytes)
    return Turn(
        round=number,
        seconds=window.seconds,
        ok=window.ok,
        failures=failures,
        requests_per_second=window.ok / window.seconds,
        cpu_us_per_request=cpu_ns / window.ended / 1e3,
        cpu_us_by_program={program: used / window.ended / 1e3 for program, used in loaded.cpu_ns.items()},
        p50_ns=window.latency.percentile(50),
        p99_ns=window.latency.percentile(99),
        alone_p50_ns=alone.window.latency.percentile(50) if alone.window.ok else None,
        request_bytes_per_cpu_second=request_bytes * window.ok / (cpu_ns / 1e9) if cpu_ns else None,
        rss_bytes=rss_bytes,
    )


def _failures(*windows: Window) -> tuple[Failure, ...]:
    codes, texts = Counter[int](), dict[int, str]()
    for window in windows:
        codes.update(window.failures)
        texts |= window.messages
    return tuple(
        Failure(code=Code(code).name, count=count, message=texts.get(code, "")) for code, count in codes.items()
    )
