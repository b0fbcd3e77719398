"""A stored comparison as docs/benchmarks.md has it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.goals import Growth, verdicts
from bench.ratios import typical
from bench.result import Comparison, Entrant, Figure, WorkFound

COLUMNS: tuple[tuple[str, Figure, float], ...] = (
    ("requests/s", "requests_per_second", 1),
    ("CPU µs/request", "cpu_us_per_request", 1),
    ("p50 ms", "p50_ns", 1e-6),
    ("p99 ms", "p99_ns", 1e-6),
    ("1 in flight, p50 ms", "alone_p50_ns", 1e-6),
)


def pages(found: Comparison, growths: Sequence[Growth]) -> str:
    """The measured works, and the goals."""
    return "\n".join([*_head(found), *(line for work in found.works for line in _work(work)), *_goals(found, growths)])


def _head(found: Comparison) -> Iterator[str]:
    versions = "; ".join(
        ", ".join(f"{name} {version}" for name, version in told.items() if name not in ("commit", "uvloop"))
        for peer, told in found.versions.items()
        if peer not in ("grpc-aio", "inferd (grpcio)")
    )
    memory = found.machine.memory_bytes / 2**30
    yield (
        f"{found.started[:10]}, {found.machine.processor}, {found.machine.cpus} processors, {memory:.0f} GiB, "
        f"{found.rounds} rounds of {found.seconds:g} s; medians."
    )
    yield f"Versions: {versions}."


def _work(work: WorkFound) -> Iterator[str]:
    load = work.loaded
    yield ""
    yield (
        f"**{work.name}**: {work.title}. {work.request_bytes:,} bytes in, {work.answer_bytes:,} out; "
        f"{load.connections} connections with {load.streams} in flight each."
    )
    yield ""
    yield "| " + " | ".join(["", *(name for name, _, _ in COLUMNS)]) + " |"
    yield "|---" * (len(COLUMNS) + 1) + "|"
    for entrant in work.entrants:
        if entrant.status != "measured":
            yield f"| {entrant.name} | {entrant.status}: {entrant.reason} |" + " |" * (len(COLUMNS) - 1)
            continue
        figures = [_short(typical(entrant, figure), unit) for _, figure, unit in COLUMNS]
        yield "| " + " | ".join([_name(entrant), *figures]) + " |"
    told = [
        f"{ratio.against} {ratio.median:.3g} ({ratio.low:.3g}..{ratio.high:.3g})"
        for ratio in work.ratios
        if ratio.figure == "requests_per_second"
        and ratio.subject == "inferd (native)"
        and "inferd" not in ratio.against
    ]
    if told:
        yield ""
        yield f"inferd (native) divided by, requests/s, median (lowest..highest): {'; '.join(told)}."


def _goals(found: Comparison, growths: Sequence[Growth]) -> Iterator[str]:
    yield ""
    yield "| | goal | against | bar | found | |"
    yield "|---|---|---|---|---|---|"
    for one in verdicts(found, growths):
        yield f"| {one.subject} | {one.text} | {one.against} | {one.bar} | {one.found} | {one.state} |"


def _name(entrant: Entrant) -> str:
    if entrant.kind == "inferd":
        return f"**{entrant.name}**"
    return f"{entrant.name} ({entrant.note or 'no inference'})" if entrant.kind in ("floor", "limit") else entrant.name


def _short(value: float | None, unit: float) -> str:
    if value is None:
        return ""
    return f"{value * unit:,.0f}" if value * unit >= 1000 else f"{value * unit:.3g}"
