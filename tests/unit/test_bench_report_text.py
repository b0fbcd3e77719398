from __future__ import annotations

import io
import re
from collections.abc import Callable

import bench_reports
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from inferd.bench.report import Progress, text
from inferd.bench.report.progress import sparkline
from inferd.bench.report.units import duration, plain, significant, size, tick_duration
from inferd.bench.result import Answers, Latency, Load, Report, ServerCost, Statistics


def rendered(report: Report, width: int = 160, terminal: bool = False) -> str:
    out = io.StringIO()
    text.render(report, Console(file=out, width=width, force_terminal=terminal, _environ={}))
    return out.getvalue()


def words(shown: str) -> str:
    return " ".join(shown.split())


# --- figures ---------------------------------------------------------------------------------------


def test_the_figures_of_a_point_are_shown_with_units() -> None:
    shown = rendered(bench_reports.single())
    times = bench_reports.single().points[0].latency
    for figure in (times.p50_ns, times.p90_ns, times.p99_ns, times.p999_ns, times.max_ns):
        assert duration(figure) in shown
    assert "8,432" in shown
    assert "147 µs" in shown
    assert "214 MiB" in shown
    assert "6.20" in shown, "the mean batch"


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("make", [bench_reports.single, bench_reports.concurrency_sweep, bench_reports.rate_sweep])
def test_every_line_fits_and_no_figure_is_cut(make: Callable[[], Report], width: int) -> None:
    report = make()
    shown = rendered(report, width)
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
    for point in report.points:
        assert duration(point.latency.p999_ns) in shown
        assert significant(point.requests_per_second) in shown
    for title in ("req/s", "rows/s", "p99.9", "errors", "unanswered", "stable"):
        assert title in shown


def test_a_pipe_gets_no_colours_and_a_terminal_does() -> None:
    assert "\x1b" not in rendered(bench_reports.rate_sweep())
    assert "\x1b[" in rendered(bench_reports.rate_sweep(), terminal=True)


def test_what_was_not_measured_is_never_a_zero() -> None:
    point = (
        bench_reports.bare()
        .points[0]
        .model_copy(
            update={
                "server": ServerCost(processes=0, cpu_seconds=0.0, cpu_us_per_request=None, rss_start=0, rss_end=0),
                "statistics": Statistics(
                    inferences=0, executions=0, queue_ns=0, compute_input_ns=0, compute_infer_ns=0, compute_output_ns=0
                ),
            }
        )
    )
    shown = rendered(bench_reports.bare().model_copy(update={"points": (point,)}))
    row = next(line.split() for line in shown.splitlines() if " NO " in line)
    # In flight; two rates and five latencies; errors and unanswered, which were counted; stable; four costs.
    assert row == ["1", *["-"] * 7, "0", "0", "NO", *["-"] * 4]
    statistics = shown.splitlines()[-2].split()
    assert statistics == ["1", "-", "-", "-", "-", "-", "0"]
    assert "answer " not in shown


def test_a_percentile_that_no_answer_lies_beyond_is_not_a_figure() -> None:
    point = bench_reports.single().points[0]
    few = Latency(count=500, p50_ns=1_000, p90_ns=2_000, p99_ns=3_000, p999_ns=444_000, max_ns=444_000)
    shown = rendered(bench_reports.report(point.model_copy(update={"latency": few})))
    assert shown.count("444 µs") == 1
    enough = few.model_copy(update={"count": 1_000})
    assert rendered(bench_reports.report(point.model_copy(update={"latency": enough}))).count("444 µs") == 2


def test_times_of_the_statistics_are_per_request_though_rows_are_inferences() -> None:
    counted = Statistics(
        inferences=800,
        executions=100,
        queue_ns=100 * 5_000,
        compute_input_ns=100 * 6_000,
        compute_infer_ns=100 * 7_000,
        compute_output_ns=100 * 8_000,
    )
    point = bench_reports.single().points[0].model_copy(update={"rows": 8, "statistics": counted})
    row = rendered(bench_reports.report(point)).splitlines()[-3]
    assert words(row) == "16 8.00 5.00 µs 6.00 µs 7.00 µs 8.00 µs 100"


# --- what qualifies the figures --------------------------------------------------------------------


def test_overload_is_said_loudly() -> None:
    shown = words(rendered(bench_reports.rate_sweep()))
    assert "UNANSWERED: 4,210 requests had no answer when the figures ended, the oldest after 4.12 s" in shown
    assert "NOT STABLE: p50 and p99 of the last windows did not agree at 16,000/s" in shown
    assert "ERRORS: 34,800 requests failed (24.2 %), at 16,000/s" in shown
    assert "RESOURCE_EXHAUSTED 34,800 the queue of model 'churn' is full: 256 requests wait" in shown


def test_a_server_that_stopped_answering_is_said_first() -> None:
    said = [line for line in rendered(bench_reports.refused()).splitlines() if re.match("[A-Z ]+: ", line)]
    assert [line.split(":")[0] for line in said] == ["STALLED", "UNANSWERED", "ERRORS", "NO ANSWERS"]
    assert "at 2 in flight" in said[0]
    assert said[3].endswith("at 1 in flight.")


def test_open_loops_say_from_when_latency_counts_and_closed_ones_do_not() -> None:
    said = "latency counts from the moment a request was due"
    assert said in words(rendered(bench_reports.rate_sweep()))
    assert said not in words(rendered(bench_reports.concurrency_sweep()))


def test_only_the_knee_is_marked() -> None:
    shown = rendered(bench_reports.concurrency_sweep())
    marked = [line for line in shown.splitlines() if line.rstrip().endswith(" knee")]
    assert marked
    assert {line.split()[0] for line in marked} == {"16"}


def test_a_good_run_warns_of_nothing() -> None:
    shown = rendered(bench_reports.single())
    for title in ("NOT STABLE", "UNANSWERED", "ERRORS", "WRONG", "RECONNECTS", "Failures", "knee", "Open loop"):
        assert title not in shown


def test_wrong_answers_are_shown_with_the_first_of_them() -> None:
    answers = Answers(right=10, wrong=2, unjudged=1, first_wrong="probability[0] is 0.5, expected 0.75")
    shown = words(
        rendered(bench_reports.report(bench_reports.single().points[0].model_copy(update={"answers": answers})))
    )
    assert "WRONG ANSWERS: 2 differ from what was expected" in shown
    assert "10 right, 2 wrong, 1 unjudged" in shown
    assert "first: probability[0] is 0.5, expected 0.75" in shown


def test_a_report_without_points_says_so() -> None:
    assert "NOTHING WAS MEASURED" in rendered(bench_reports.report())


def test_text_of_a_server_cannot_steer_a_terminal() -> None:
    shown = rendered(bench_reports.hostile())
    assert not [char for char in shown if not char.isprintable() and char != "\n"]
    assert "[bold]b[/]" in shown, "markup is text"
    assert "\\x1b[31m" in words(shown)


# --- units -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ns", "shown"),
    [
        (1, "1 ns"),
        (999, "999 ns"),
        (1_000, "1.00 µs"),
        (12_345, "12.3 µs"),
        (999_499, "999 µs"),
        (999_600, "1.00 ms"),
        (1_234_567, "1.23 ms"),
        (999_960_000, "1.00 s"),
        (75_000_000_000, "75.0 s"),
        (0, "-"),
        (None, "-"),
    ],
)
def test_durations_have_three_digits_and_the_unit_that_fits(ns: int | None, shown: str) -> None:
    assert duration(ns) == shown


def test_other_figures_are_as_short() -> None:
    assert [significant(value) for value in (0, 0.01234, 1.5, 99.96, 999.7, 12_345.6)] == [
        "0",
        "0.0123",
        "1.50",
        "100",
        "1,000",
        "12,346",
    ]
    assert [size(count) for count in (0, 86, 2048, 214 << 20, 32 << 30)] == [
        "-",
        "86 B",
        "2.00 KiB",
        "214 MiB",
        "32.0 GiB",
    ]
    assert [tick_duration(ns) for ns in (0, 500, 2_500, 1e6, 2e9)] == ["0", "500 ns", "2.5 µs", "1 ms", "2 s"]


@given(st.floats(min_value=1e-5, max_value=1e15))
def test_a_figure_is_within_its_last_digit_of_the_value(value: float) -> None:
    shown = significant(value)
    assert abs(float(shown.replace(",", "")) - value) <= max(value * 0.00501, 0.0000006)
    assert "e" not in shown


@given(st.text())
def test_text_becomes_one_printable_line(said: str) -> None:
    shown = plain(said)
    assert shown.isprintable()
    assert len(shown) <= 300


# --- progress --------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def screen(terminal: bool) -> Console:
    return Console(
        file=io.StringIO(), force_terminal=terminal, width=100, _environ={"TERM": "xterm"} if terminal else {}
    )


def written(console: Console) -> str:
    out = console.file
    assert isinstance(out, io.StringIO)
    return out.getvalue()


def test_without_a_terminal_progress_is_one_plain_line_per_point() -> None:
    console = screen(terminal=False)
    points = bench_reports.concurrency_sweep().points
    with Progress(console) as progress:
        for point in points:
            progress.phase("measuring")
            for moment in point.timeline:
                progress.moment(moment, window=1, stable=False)
            progress.point(point)
    lines = written(console).splitlines()
    assert len(lines) == len(points)
    assert lines[0] == "1 in flight: 1,420 req/s, p50 683 µs, p99 902 µs, 0 errors"
    assert lines[-1].endswith("NOT STABLE")


def test_on_a_terminal_moments_are_drawn_four_times_a_second_at_most() -> None:
    console, clock = screen(terminal=True), Clock()
    moments = bench_reports.single().points[0].timeline
    with Progress(console, clock) as progress:
        progress.phase("16 in flight")
        seen = len(written(console))
        draws = 0
        for moment in moments[:100]:
            clock.now += 0.1
            progress.moment(moment)
            draws += len(written(console)) > seen
            seen = len(written(console))
    assert 0 < draws <= 100 * 0.1 * 4


def test_the_live_display_tells_the_newest_moment() -> None:
    console, clock = screen(terminal=True), Clock()
    warm, measured = (bench_reports.single().points[0].timeline[index] for index in (0, 30))
    with Progress(console, clock) as progress:
        progress.phase("16 in flight")
        clock.now += 1
        progress.moment(warm)
        assert "warming up" in written(console)
        clock.now += 1
        progress.moment(measured.model_copy(update={"errors": 7}), window=3, stable=True)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written(console))
    assert "16 in flight  measuring  window 3  stable" in shown
    assert f"p50 {duration(measured.p50_ns)}  p99 {duration(measured.p99_ns)}  7 errors" in shown


def test_a_moment_without_answers_shows_no_latency() -> None:
    console, clock = screen(terminal=True), Clock()
    with Progress(console, clock) as progress:
        progress.phase("1 in flight")
        clock.now += 1
        progress.moment(bench_reports.bare().points[0].timeline[0])
    assert "p50 -  p99 -" in written(console)


def test_a_sparkline_starts_at_zero() -> None:
    assert sparkline([0, 4, 8]) == "▁▅█"
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([]) == ""


def test_closed_loops_are_named_by_what_is_in_flight() -> None:
    point = bench_reports.single().points[0].model_copy(update={"load": Load(connections=4, streams=8)})
    console = screen(terminal=False)
    Progress(console).point(point)
    assert written(console).startswith("32 in flight: ")
