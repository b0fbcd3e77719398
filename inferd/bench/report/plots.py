"""The plots of a page. Every axis starts at zero, or says that it is logarithmic by its ticks and its label."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

import numpy as np

from inferd.bench.report import figures, svg
from inferd.bench.report.timeline import Step, steps
from inferd.bench.report.units import significant, tick_duration
from inferd.bench.result import Latency, Point, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

_PERCENTS = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999)
# Latencies further apart than this share no linear axis on which the small ones can be read.
_LINEAR_UP_TO = 20
_TEXT_WIDTH = 6.6

_Box = tuple[float, float, float, float]
_At = tuple[float, float]


def percentiles(report: Report, name: str, width: int, height: int) -> Element:
    """Latency by percentile, one line for each of at most six points."""
    chosen = chosen_points(report)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        highest = 0.0
        for point, color in zip(chosen, _colors(len(chosen)), strict=True):
            nines, latency_ns = curve(point.latency)
            highest = max(highest, nines[-1])
            axes.plot(nines, latency_ns, color=color, label=figures.short_label(point.load))
        shown = [percent for percent in _PERCENTS if _nines(percent) <= highest + 0.01]
        axes.set_xticks([_nines(percent) for percent in shown], [f"{percent:g}" for percent in shown])
        axes.set_xlim(0, highest)
        axes.set_xlabel("percentile of answers (%)")
        _latency_axis(axes, [value for point in chosen for value in curve(point.latency)[1]])
        if len(chosen) > 1:
            _legend(axes, len(chosen) if width > 600 else 3, figures.load_column(chosen).title)

    return svg.draw(name, "Latency by percentile", width, height, paint)


def chosen_points(report: Report) -> tuple[Point, ...]:
    """At most as many points as there are colours: the ends, the knee, and others evenly between."""
    answered = [point for point in report.points if point.latency.count]
    most = len(svg.STEPS)
    if len(answered) <= most:
        return tuple(answered)
    kept = {round(index) for index in np.linspace(0, len(answered) - 1, most)}
    turn = figures.knee(report)
    if turn in answered and (at := answered.index(turn)) not in kept:
        kept.remove(min(kept - {0, len(answered) - 1}, key=lambda index: abs(index - at)))
        kept.add(at)
    return tuple(answered[index] for index in sorted(kept))


def curve(latency: Latency) -> tuple[list[float], list[float]]:
    """Where the answers lie, as numbers of nines and latencies; it ends where no answer lies beyond."""
    last = math.log10(max(latency.count, 2))
    if not latency.buckets:
        named = ((50, latency.p50_ns), (90, latency.p90_ns), (99, latency.p99_ns), (99.9, latency.p999_ns))
        known = [(_nines(percent), float(value)) for percent, value in named if _nines(percent) <= last]
        return [0.0, *(x for x, _ in known), last], [latency.min_ns, *(y for _, y in known), latency.max_ns]
    values, counts = np.array(latency.buckets).T
    seen = np.cumsum(counts)
    nines = np.linspace(0, last, 140)
    wanted = np.minimum((1 - 10.0**-nines) * seen[-1], seen[-1] - 0.5)
    return nines.tolist(), values[np.searchsorted(seen, wanted, side="right")].tolist()


def _nines(percent: float) -> float:
    return -math.log10(1 - percent / 100)


def throughput(report: Report, name: str, width: int, height: int) -> Element:
    """Latency against answers per second over a sweep, and what was offered against what was answered."""
    points = [point for point in report.points if point.latency.count]
    offered = report.sweep == "rate" and all(point.load.rate for point in report.points)

    def paint(figure: Figure) -> None:
        beside = width > 600
        if not offered:
            _against_latency(figure.subplots(), report, points)
            return
        first, second = figure.subplots(1, 2) if beside else figure.subplots(2, 1, gridspec_kw={"hspace": 0.08})
        _against_latency(first, report, points)
        _against_offer(second, report)

    return svg.draw(name, "Latency against throughput", width, height, paint)


def _against_latency(axes: Axes, report: Report, points: Sequence[Point]) -> None:
    speeds = [point.requests_per_second for point in points]
    tails = [point.latency.p99_ns for point in points]
    medians = [point.latency.p50_ns for point in points]
    axes.plot(speeds, tails, "s-", color=svg.TAIL, label="p99", markersize=6)
    axes.plot(speeds, medians, "o-", color=svg.MEDIAN, label="p50", markersize=6)
    _latency_axis(axes, [*tails, *medians])
    axes.set_xlim(0, max(speeds, default=1) * 1.1)
    axes.set_xlabel("answers per second")
    _plain_numbers(axes.xaxis)
    turn = figures.knee(report)
    lines = [list(zip(speeds, tails, strict=True)), list(zip(speeds, medians, strict=True))]
    if turn is not None and turn in points:
        axes.axvline(turn.requests_per_second, color=svg.MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    _legend(axes, 2)
    marks = [(figures.mark(point.load), at) for point, at in zip(points, lines[0], strict=True) if point is not turn]
    if turn is not None and turn in points:
        marks.insert(0, (f"{figures.mark(turn.load)} (knee)", lines[0][points.index(turn)]))
    _annotate(axes, marks, lines)


def _against_offer(axes: Axes, report: Report) -> None:
    rates = [point.load.rate or 0.0 for point in report.points]
    speeds = [point.requests_per_second for point in report.points]
    top = max(*rates, *speeds, 1.0) * 1.05
    axes.plot([0, top], [0, top], color=svg.MUTED, linewidth=1, linestyle=(0, (4, 3)), label="all answered")
    axes.plot(rates, speeds, "o-", color=svg.MEDIAN, label="answered", markersize=6)
    axes.set_xlim(0, top)
    axes.set_ylim(0, top)
    axes.set_xlabel("offered per second")
    axes.set_ylabel("answers per second")
    _plain_numbers(axes.xaxis)
    _plain_numbers(axes.yaxis)
    _legend(axes, 2)


def _annotate(axes: Axes, marks: Sequence[tuple[str, _At]], lines: Sequence[Sequence[_At]]) -> None:
    """Put each text beside its point where it covers neither a line nor another text, or leave it out; first come."""
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]
    drawn = [box for line in lines for box in _along(axes.transData.transform(line))]
    left, low, right, high = axes.bbox.extents
    texts: list[_Box] = []
    for text, at in marks:
        at_x, at_y = axes.transData.transform(at)
        wide = _TEXT_WIDTH * len(text)
        places = [(at_x + dx, at_y + dy, at_x + dx + wide, at_y + dy + 10) for dx, dy in _around(wide)]
        inside = [box for box in places if left <= box[0] and box[2] <= right + 10 and low < box[1] and box[3] <= high]
        if box := next((box for box in inside if not any(_overlap(box, other) for other in (*texts, *drawn))), None):
            offset = (box[0] - at_x, box[1] - at_y)
            axes.annotate(text, at, offset, textcoords="offset points", fontsize=11)
            texts.append(box)


def _around(wide: float) -> Iterator[tuple[float, float]]:
    """Where a text may start, seen from its point: above, left, right, below, then further off."""
    for away in (8, 14, 20):
        yield from ((-wide / 2, away), (-wide - away, -4), (away, -4), (-wide - away / 2, away), (away / 2, away))
        yield from ((away / 2, -away - 10), (-wide / 2, -away - 10), (-wide - away / 2, -away - 10))


def _along(pixels: np.ndarray) -> Iterator[_Box]:
    """Small boxes that cover a line of so many points."""
    for (x, y), (to_x, to_y) in pairwise(pixels):
        pieces = max(2, int(math.hypot(to_x - x, to_y - y) / 4))
        for at_x, at_y in zip(np.linspace(x, to_x, pieces), np.linspace(y, to_y, pieces), strict=True):
            yield at_x - 3, at_y - 3, at_x + 3, at_y + 3
    for x, y in pixels:
        yield x - 5, y - 5, x + 5, y + 5


def _overlap(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def timeline(report: Report, name: str, width: int, height: int) -> Element:
    """Answers per second, latency and errors while the run went on; what the figures leave out is shaded."""
    runs = steps(report.points, most=max(60, width // 3))
    failed = any(step.errors_per_second for run in runs for step in run)

    def paint(figure: Figure) -> None:
        rows = figure.subplots(3 if failed else 2, 1, sharex=True, height_ratios=[3, 3, 1.6][: 3 if failed else 2])
        flow, latency = rows[0], rows[1]
        for run in runs:
            at = [step.middle_s for step in run]
            flow.plot(at, [step.answers_per_second for step in run], color=svg.INK, linewidth=1.5)
            latency.plot(at, [step.p99_ns for step in run], color=svg.TAIL, linewidth=1.5)
            latency.plot(at, [step.p50_ns for step in run], color=svg.MEDIAN, linewidth=1.5)
        flow.set_ylim(0, max((step.answers_per_second for run in runs for step in run), default=1) * 1.1 or 1)
        flow.set_ylabel("answers/s")
        _plain_numbers(flow.yaxis)
        known = [value for run in runs for step in run for value in (step.p50_ns, step.p99_ns) if value == value]
        _latency_axis(latency, known)
        latency.plot([], [], color=svg.TAIL, label="p99")
        latency.plot([], [], color=svg.MEDIAN, label="p50")
        _legend(latency, 2)
        if failed:
            _errors(rows[2], runs)
        _shade(rows, runs)
        if len(runs) > 1:
            _name_runs(flow, runs, report.points, width)
        rows[-1].set_xlabel("seconds")

    return svg.draw(name, "The run over time", width, height, paint)


def _errors(axes: Axes, runs: Sequence[Sequence[Step]]) -> None:
    for run in runs:
        at = [step.middle_s for step in run]
        axes.fill_between(at, [step.errors_per_second for step in run], color=svg.BAD, linewidth=0, step="mid")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("errors/s")
    _plain_numbers(axes.yaxis)


def _shade(rows: Sequence[Axes], runs: Sequence[Sequence[Step]]) -> None:
    last = max((run[-1].end_s for run in runs), default=1.0)
    for axes in rows:
        axes.set_xlim(0, last)
        for run in runs:
            for measured, same in groupby(run, key=lambda step: step.measured):
                if not measured:
                    left_out = list(same)
                    axes.axvspan(left_out[0].start_s, left_out[-1].end_s, color=svg.SHADE, linewidth=0, zorder=0)


def _name_runs(axes: Axes, runs: Sequence[Sequence[Step]], points: Sequence[Point], width: int) -> None:
    """Write the load above each run that has room for it."""
    shown = [point for point in points if point.timeline]
    pixels_per_second = 0.85 * width / max(runs[-1][-1].end_s, 1e-9)
    free_from = 0.0
    for run, point in zip(runs, shown, strict=True):
        text = figures.mark(point.load)
        middle = (run[0].start_s + run[-1].end_s) / 2
        half = (len(text) + 1) * _TEXT_WIDTH / 2 / pixels_per_second
        if middle - half < free_from:
            continue
        free_from = middle + half
        axes.annotate(
            text,
            (middle, 1),
            (0, 3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
            fontsize=11,
        )


# --- axes ------------------------------------------------------------------------------------------


def _latency_axis(axes: Axes, values_ns: Sequence[float]) -> None:
    """From zero where that leaves the smallest latency readable, else logarithmic."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axes.set_ylabel("latency")
    if not values_ns:
        axes.set_yticks([])
        return
    low, high = max(min(values_ns), 1), max(values_ns)
    if high <= low * _LINEAR_UP_TO:
        axes.set_ylim(0, high * 1.1)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    else:
        axes.set_yscale("log")
        axes.set_ylim(low * 0.7, high * 1.6)
        ratio = high / low
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if ratio < 40 else (1, 3) if ratio < 400 else (1,)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylabel("latency (log scale)")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_duration(value)))


def _plain_numbers(axis: Axis) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: significant(value) if value < 10 else f"{value:,.0f}"))


def _legend(axes: Axes, columns: int, title: str = "") -> None:
    """Above the axes, where no line runs through it."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, title=title, alignment="left")


def _colors(count: int) -> tuple[str, ...]:
    """Colours from the whole range of steps, however few are wanted."""
    if count == 1:
        return (svg.MEDIAN,)
    return tuple(svg.STEPS[round(index)] for index in np.linspace(len(svg.STEPS) - 1, 0, count)[::-1])
