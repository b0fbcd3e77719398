"""One load, measured: warm-up, windows until they agree, and what the server used meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inferd.bench.cost import Processes, Used
from inferd.bench.generator import Generator, Traffic
from inferd.bench.result import Failure, Load, Moment, Point, ServerCost, Statistics
from inferd.bench.target import Target
from inferd.bench.verify import Judge
from inferd.bench.window import FIGURES, SLICE_NS, Course, Plan, Window, latency_of, merged
from inferd.errors import Code, StartError

if TYPE_CHECKING:
    from inferd._native.tally import Slice
    from inferd.bench.report import Progress


@dataclass(frozen=True, slots=True)
class Reading:
    """What the server had used, and what it had counted, at the edge of a window."""

    used: Used | None
    statistics: Statistics | None


@dataclass(frozen=True, slots=True)
class Meter:
    """Where readings come from; None where there is nothing to read."""

    processes: Processes | None = None
    target: Target | None = None

    def read(self) -> Reading:
        """A reading now. The processes first: they do not wait for the server."""
        used = self.processes.read() if self.processes is not None else None
        return Reading(used, self.target.statistics() if self.target is not None else None)

    def cost(self, start: Reading, end: Reading, requests: int) -> ServerCost | None:
        """What the server used between two readings."""
        if self.processes is None or start.used is None or end.used is None:
            return None
        return self.processes.between(start.used, end.used, requests)


class _Timeline:
    """The moments of a measurement, of which only the end decides which ones the figures are of."""

    def __init__(self) -> None:
        self.moments: list[Moment] = []
        self._start_ns: int | None = None

    def add(self, part: Slice, measured: bool) -> Moment:
        if self._start_ns is None:
            self._start_ns = part.start_ns
        self.moments.append(
            Moment(
                start_s=(part.start_ns - self._start_ns) / 1e9,
                seconds=(part.end_ns - part.start_ns) / 1e9,
                measured=measured,
                ok=part.ok,
                errors=sum(part.failures.values()),
                p50_ns=part.latency.percentile(50),
                p99_ns=part.latency.percentile(99),
            )
        )
        return self.moments[-1]

    def of_figures(self, figures: Window) -> tuple[Moment, ...]:
        start_s = (figures.start_ns - (self._start_ns or 0)) / 1e9
        return tuple(
            one.model_copy(update={"measured": False}) if one.start_s < start_s else one for one in self.moments
        )


def measure(
    traffic: Traffic,
    load: Load,
    plan: Plan,
    *,
    rows: int = 1,
    threads: int = 1,
    seed: int = 0,
    meter: Meter | None = None,
    judge: Judge | None = None,
    progress: Progress | None = None,
) -> Point:
    """Offer the load until the plan is fulfilled, or until the server has stopped answering for good.

    Raises StartError if nobody listens there.
    """
    meter = meter if meter is not None else Meter()
    course, timeline, connects = Course(plan, load), _Timeline(), 0
    # A number of requests has no warm-up: all of them count, from the moment that they start.
    readings = [meter.read()] if plan.requests else []
    part: Slice | None = None
    try:
        with Generator(traffic, load, threads=threads, slice_ns=SLICE_NS, limit=plan.requests, seed=seed) as generator:
            for part in generator.slices():
                connects += part.connects
                if judge is not None:
                    judge.look(part, generator)
                moment = timeline.add(part, measured=bool(readings))
                if progress is not None:
                    window = len(course.windows) + 1 if readings else 0
                    progress.moment(moment, window=window, stable=course.stable if window > FIGURES else None)
                if not readings:
                    if moment.start_s + moment.seconds >= plan.warmup_s:
                        readings.append(meter.read())
                    continue
                if course.add(part):
                    readings.append(meter.read())
                if course.finished:
                    break
    except OSError as err:
        raise StartError(f"{traffic.address} cannot be reached: {err.strerror or err}") from err
    if course.close():
        readings.append(meter.read())
    assert part is not None, "a load has at least one slice"
    figures = merged(course.figures)
    first, last = readings[-1 - len(course.figures)], readings[-1]
    unanswered = _unanswered(part, load, figures)
    return Point(
        load=load,
        rows=rows,
        stable=course.stable,
        windows=len(course.windows),
        seconds=figures.seconds,
        ok=figures.ok,
        requests_per_second=figures.ok / figures.seconds,
        rows_per_second=rows * figures.ok / figures.seconds,
        sent_bytes_per_second=figures.sent_bytes / figures.seconds,
        received_bytes_per_second=figures.received_bytes / figures.seconds,
        latency=latency_of(figures.latency),
        failures=_failures(figures),
        stalled=course.stalled,
        unanswered=unanswered,
        oldest_unanswered_ns=part.oldest_ns if unanswered else 0,
        reconnects=max(0, connects - load.connections),
        timeline=timeline.of_figures(figures),
        answers=judge.answers if judge is not None else None,
        server=meter.cost(first, last, figures.ended),
        statistics=_moved(first.statistics, last.statistics),
    )


def _unanswered(last: Slice, load: Load, figures: Window) -> int:
    """Requests whose answers are missing in the figures.

    In a closed loop some are always under way. They are missing if they have waited longer than any that was
    answered; in an open loop also if they hold every place, so that what is due cannot be sent.
    """
    overdue = last.oldest_ns > max(figures.latency.max_ns, SLICE_NS)
    full = load.rate is not None and last.in_flight >= load.connections * load.streams
    return last.in_flight + last.overdue if overdue or full else 0


def _failures(figures: Window) -> tuple[Failure, ...]:
    return tuple(
        Failure(code=Code(code).name, count=count, message=figures.messages.get(code, ""))
        for code, count in figures.failures.most_common()
    )


def _moved(start: Statistics | None, end: Statistics | None) -> Statistics | None:
    if start is None or end is None:
        return None
    before, after = start.model_dump(), end.model_dump()
    return Statistics(**{name: after[name] - before[name] for name in after})
