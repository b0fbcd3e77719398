"""What every report says in the same words: columns of the tables, facts, warnings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from inferd.bench.report.units import NOT_MEASURED, counted, duration, plain, significant, size
from inferd.bench.result import Answers, Latency, Load, Machine, Point, Report, Statistics, Tensor

DUE = "Open loop: latency counts from the moment a request was due, not from when it was sent."


@dataclass(frozen=True, slots=True)
class Column:
    """A figure of each point."""

    title: str
    cell: Callable[[Point], str]


@dataclass(frozen=True, slots=True)
class Notice:
    """What a reader must know before believing the figures; `bad` is about the figures, else about how to read them."""

    bad: bool
    title: str
    text: str


# --- loads -----------------------------------------------------------------------------------------


def in_flight(load: Load) -> int:
    """Requests that may be under way at once."""
    return load.connections * load.streams


def mark(load: Load) -> str:
    """The load in as few characters as a plot has room for."""
    if load.rate is None or load.rate < 1000:
        return short_label(load)
    return f"{load.rate / 1000:.4g}k/s"


def short_label(load: Load) -> str:
    """The load as a number."""
    return f"{in_flight(load):,}" if load.rate is None else f"{significant(load.rate)}/s"


def label(load: Load) -> str:
    """The load in words."""
    return f"{short_label(load)} in flight" if load.rate is None else short_label(load)


def loop(report: Report) -> str:
    """How requests were offered, all points together."""
    loads = [point.load for point in report.points]
    if not loads:
        return NOT_MEASURED
    streams = _range([load.streams for load in loads])
    many = max(load.connections for load in loads) > 1
    connections = f"{_range([load.connections for load in loads])} connection{'s' if many else ''}"
    if any(load.rate is not None for load in loads):
        arrivals = " and ".join(sorted({load.arrivals for load in loads}))
        return f"open loop, {arrivals} arrivals; {connections}, up to {streams} under way on each"
    return f"closed loop, {connections} with {streams} in flight on each"


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


# --- columns ---------------------------------------------------------------------------------------


def load_column(points: Iterable[Point]) -> Column:
    """The load of each point, under the name that fits all of them."""
    open_loops = {point.load.rate is not None for point in points}
    if open_loops == {True}:
        return Column("offered", lambda point: short_label(point.load))
    if open_loops == {False}:
        return Column("in flight", lambda point: short_label(point.load))
    return Column("load", lambda point: label(point.load))


def _per_second(figure: Callable[[Point], float], scale: float = 1.0) -> Callable[[Point], str]:
    return lambda point: significant(figure(point) / scale) if point.seconds > 0 else NOT_MEASURED


def percentile(latency: Latency, percent: float, value_ns: int) -> str:
    """The percentile, unless so few requests were answered that none lies beyond it."""
    return duration(value_ns) if latency.count * (100 - percent) >= 99.999 else NOT_MEASURED


def errors(point: Point) -> int:
    """Requests that ended with a gRPC code other than OK."""
    return sum(failure.count for failure in point.failures)


def _cpu(point: Point) -> str:
    cost = point.server
    return duration((cost.cpu_us_per_request or 0) * 1e3) if cost is not None and cost.processes else NOT_MEASURED


def _cpus(point: Point) -> str:
    cost = point.server
    measured = cost is not None and cost.processes and point.seconds > 0
    return significant(cost.cpu_seconds / point.seconds) if cost is not None and measured else NOT_MEASURED


def _rss(point: Point) -> str:
    return size(point.server.rss_end) if point.server is not None else NOT_MEASURED


def _grown(point: Point) -> str:
    cost = point.server
    if cost is None or not cost.rss_start or not cost.rss_end:
        return NOT_MEASURED
    change = cost.rss_end - cost.rss_start
    return f"{'+' if change > 0 else '-'}{size(abs(change))}" if change else "none"


CONNECTIONS = Column("conn. x streams", lambda point: f"{point.load.connections} x {point.load.streams}")
REQUESTS = Column("req/s", _per_second(lambda point: point.requests_per_second))
ROWS = Column("rows/s", _per_second(lambda point: point.rows_per_second))
BYTES = (
    Column("sent MB/s", _per_second(lambda point: point.sent_bytes_per_second, 1e6)),
    Column("received MB/s", _per_second(lambda point: point.received_bytes_per_second, 1e6)),
)
P50 = Column("p50", lambda point: percentile(point.latency, 50, point.latency.p50_ns))
P99 = Column("p99", lambda point: percentile(point.latency, 99, point.latency.p99_ns))
LATENCY = (
    P50,
    Column("p90", lambda point: percentile(point.latency, 90, point.latency.p90_ns)),
    P99,
    Column("p99.9", lambda point: percentile(point.latency, 99.9, point.latency.p999_ns)),
    Column("max", lambda point: duration(point.latency.max_ns)),
)
ERRORS = Column("errors", lambda point: f"{errors(point):,}")
UNANSWERED = Column("unanswered", lambda point: f"{point.unanswered:,}")
CPU = Column("server CPU per request", _cpu)
RSS = Column("server RSS", _rss)
STABLE = Column("stable", lambda point: "yes" if point.stable else "NO")
DETAILS = (
    Column("answered", lambda point: f"{point.ok:,}"),
    Column("reconnects", lambda point: f"{point.reconnects:,}"),
    Column("seconds", lambda point: significant(point.seconds)),
    Column("windows", lambda point: f"{point.windows:,}"),
    Column("shortest", lambda point: duration(point.latency.min_ns)),
    Column("mean", lambda point: duration(point.latency.mean_ns)),
)
SERVER = (CPU, Column("server CPUs busy", _cpus), RSS, Column("RSS growth", _grown))


def _batch(point: Point) -> str:
    moved = point.statistics
    return significant(moved.inferences / moved.executions) if moved and moved.executions else NOT_MEASURED


def _statistic(figure: Callable[[Statistics], int]) -> Callable[[Point], str]:
    return lambda point: f"{figure(point.statistics):,}" if point.statistics else NOT_MEASURED


def _time(figure: Callable[[Statistics], int]) -> Callable[[Point], str]:
    """Time per request: servers add these times up per request, but count every row as an inference."""

    def cell(point: Point) -> str:
        moved = point.statistics
        return duration(figure(moved) * point.rows / moved.inferences) if moved and moved.inferences else NOT_MEASURED

    return cell


def _answer(figure: Callable[[Answers], int]) -> Callable[[Point], str]:
    return lambda point: f"{figure(point.answers):,}" if point.answers else NOT_MEASURED


MEAN_BATCH = Column("mean batch", _batch)
STATISTICS = (
    MEAN_BATCH,
    Column("queue", _time(lambda moved: moved.queue_ns)),
    Column("input", _time(lambda moved: moved.compute_input_ns)),
    Column("infer", _time(lambda moved: moved.compute_infer_ns)),
    Column("output", _time(lambda moved: moved.compute_output_ns)),
    Column("executions", _statistic(lambda moved: moved.executions)),
)
INFERENCES = Column("inferences", _statistic(lambda moved: moved.inferences))
ANSWERS = (
    Column("right", _answer(lambda answers: answers.right)),
    Column("wrong", _answer(lambda answers: answers.wrong)),
    Column("unjudged", _answer(lambda answers: answers.unjudged)),
    Column("first wrong", lambda point: plain((point.answers and point.answers.first_wrong) or NOT_MEASURED)),
)


# --- the run as a whole ----------------------------------------------------------------------------


def knee(report: Report) -> Point | None:
    """The point past which more load buys little but latency."""
    at = report.knee
    return report.points[at] if at is not None and at < len(report.points) else None


def headline(report: Report) -> Point | None:
    """The point to speak of first: the knee, or the one with the most answers per second."""
    return knee(report) or max(report.points, key=lambda point: point.requests_per_second, default=None)


def tensors(described: Iterable[Tensor]) -> str:
    """Inputs or outputs in one line: name, datatype, shape."""
    return (
        ", ".join(plain(f"{one.name} {one.datatype}[{','.join(map(str, one.shape))}]") for one in described) or "none"
    )


def machine(where: Machine) -> str:
    """The machine in one line, without what is not known of it."""
    known = (
        where.processor,
        counted(where.cpus, "CPU") if where.cpus else "",
        size(where.memory_bytes) if where.memory_bytes else "",
        where.system,
        where.python,
    )
    return plain(", ".join(part for part in known if part))


def facts(report: Report) -> Iterator[tuple[str, str]]:
    """What was measured, where and how, as name and text."""
    subject = report.subject
    server = " ".join(part for part in (subject.server, subject.server_version) if part) or "unknown server"
    yield "server", plain(f"{server} at {subject.address}, on {'this' if report.local else 'another'} machine")
    version = f" version {subject.model_version}" if subject.model_version else ""
    yield "model", plain(f"{subject.model}{version}")
    yield "inputs", tensors(subject.inputs)
    yield "outputs", tensors(subject.outputs)
    rows = sorted({point.rows for point in report.points})
    told = f", {' or '.join(counted(each, 'row') for each in rows)}" if rows else ""
    yield "request", plain(f"{size(subject.request_bytes)}{told}; {subject.data}")
    if subject.answer_bytes:
        yield "answer", size(subject.answer_bytes)
    yield "load", loop(report)
    yield "machine", machine(report.machine)
    yield "started", plain(f"{report.started}, inferd {report.inferd}")
    yield "command", plain(report.command, limit=2000)


def notices(report: Report) -> Iterator[Notice]:
    """Everything that qualifies the figures, worst first."""
    points = report.points
    if not points:
        yield Notice(True, "Nothing was measured", "the run ended before its first point did.")
    if wrong := [point for point in points if point.answers and point.answers.wrong]:
        count = sum(point.answers.wrong for point in wrong if point.answers)
        yield Notice(True, "Wrong answers", f"{count:,} differ from what was expected, at {_at(wrong)}.")
    if stalled := [point for point in points if point.stalled]:
        yield Notice(
            True,
            "Stalled",
            f"the server had stopped answering at {_at(stalled)}; the figures are of all that was measured.",
        )
    if late := [point for point in points if point.unanswered]:
        count = sum(point.unanswered for point in late)
        oldest = max(point.oldest_unanswered_ns for point in late)
        waited = f", the oldest after {duration(oldest)}" if oldest else ""
        yield Notice(
            True,
            "Unanswered",
            f"{counted(count, 'request')} had no answer when the figures ended{waited}, at {_at(late)}. "
            "No latency counts them: the true ones are longer.",
        )
    if failing := [point for point in points if point.failures]:
        count = sum(map(errors, failing))
        share = significant(100 * count / sum(point.ok + errors(point) for point in failing))
        text = f"{counted(count, 'request')} failed ({share} %), at {_at(failing)}. Latencies are of good answers only."
        yield Notice(True, "Errors", text)
    if silent := [point for point in points if not point.ok and not point.stalled]:
        yield Notice(True, "No answers", f"not one request was answered well at {_at(silent)}.")
    if unstable := [point for point in points if point.ok and not point.stable and not point.stalled]:
        text = f"p50 and p99 of the last windows did not agree at {_at(unstable)}: measure longer."
        yield Notice(True, "Not stable", text)
    if lost := [point for point in points if point.reconnects]:
        count = sum(point.reconnects for point in lost)
        yield Notice(True, "Reconnects", f"{counted(count, 'connection')} lost and opened again, at {_at(lost)}.")
    if any(point.load.rate is not None for point in points):
        yield Notice(False, *DUE.split(": ", 1))
    if (turn := knee(report)) is not None:
        yield Notice(False, "Knee", f"past {label(turn.load)} more load buys little but latency.")


def _at(points: Sequence[Point]) -> str:
    return ", ".join(dict.fromkeys(label(point.load) for point in points))
