"""When figures are stable, when a measurement ends, and what a sweep finds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from inferd._native.histogram import Histogram
from inferd.bench import options, sweep
from inferd.bench.result import Failure, Latency, Load, Point
from inferd.bench.window import Course, Plan, Window, agree, merged
from inferd.errors import StartError

MS = 1_000_000
CLOSED, OPEN = Load(connections=1, streams=1), Load(connections=1, streams=1, rate=1.0)


@dataclass
class Part:
    """What a slice says, without a generator."""

    start_ns: int
    end_ns: int
    latency: Histogram
    failures: dict[int, int] = field(default_factory=dict)
    messages: dict[int, str] = field(default_factory=dict)
    in_flight: int = 1
    overdue: int = 0
    sent_bytes: int = 10
    received_bytes: int = 20

    @property
    def ok(self) -> int:
        return self.latency.count


def histogram(*latencies_ms: float) -> Histogram:
    made = Histogram()
    for latency in latencies_ms:
        made.record(int(latency * MS))
    return made


def window(*latencies_ms: float) -> Window:
    return Window(0, 1000 * MS, histogram(*latencies_ms))


def parts(latencies_ms: Iterable[float], each: int, *, start: int = 0, **more: int) -> list[Part]:
    """Slices of 100 ms; in each of them so many answers of the same latency."""
    return [
        Part((start + index) * 100 * MS, (start + index + 1) * 100 * MS, histogram(*[latency] * each), **more)
        for index, latency in enumerate(latencies_ms)
    ]


def play(course: Course, slices: Iterable[Part]) -> int:
    """Add slices until the course has enough of them; how many that took."""
    taken = 0
    for part in slices:
        course.add(part)  # type: ignore[arg-type]
        taken += 1
        if course.finished:
            break
    return taken


# --- stability -----------------------------------------------------------------------------------------


def test_three_windows_agree_within_the_tolerance() -> None:
    windows = [window(1.0, 2.0), window(1.05, 2.1), window(0.95, 1.9)]
    assert agree(windows, 0.06)
    assert not agree(windows, 0.04)
    assert not agree(windows[1:], 0.06)


@pytest.mark.parametrize("odd", [(1.0, 4.0), (2.0, 2.0), ()])
def test_a_window_with_another_p50_or_p99_or_none_disagrees(odd: tuple[float, ...]) -> None:
    assert not agree([window(1.0, 2.0), window(1.0, 2.0), window(*odd)], 0.1)


def test_only_the_last_windows_are_asked() -> None:
    assert agree([window(9.0), *[window(1.0)] * 3], 0.1)


def test_merged_windows_have_the_percentile_of_all_answers_and_not_a_mean_of_percentiles() -> None:
    whole = merged([window(*[1.0] * 99), window(100.0)])
    assert whole.latency.percentile(50) < 2 * MS
    assert (whole.ok, whole.ended) == (100, 100)


# --- the end of a measurement ----------------------------------------------------------------------------


def test_stable_figures_end_a_measurement_after_three_windows() -> None:
    course = Course(Plan(window_s=1.0), CLOSED)
    assert play(course, parts([5.0] * 100, 10)) == 30
    assert course.stable
    assert [one.seconds for one in course.windows] == [1.0] * 3


def test_a_window_ends_within_half_a_slice_of_its_length() -> None:
    late = [Part(100 * MS * i + MS, 100 * MS * (i + 1), histogram(*[5.0] * 20)) for i in range(30)]
    course = Course(Plan(window_s=1.0), CLOSED)
    assert play(course, late) == 30


def test_a_start_unlike_the_rest_is_not_in_the_figures() -> None:
    course = Course(Plan(window_s=0.5), CLOSED)
    play(course, parts([50.0] * 5 + [5.0] * 50, 20))
    assert course.stable
    assert merged(course.figures).latency.max_ns < 6 * MS
    assert len(course.windows) == 4


def test_figures_that_never_agree_end_after_the_most_windows() -> None:
    course = Course(Plan(window_s=0.1, max_windows=7), CLOSED)
    assert play(course, parts([1.0, 2.0] * 50, 60)) == 7
    assert not course.stable


def test_a_window_with_few_answers_grows_until_it_has_fifty() -> None:
    course = Course(Plan(window_s=0.2), CLOSED)
    assert play(course, parts([5.0] * 100, 10)) == 15
    assert [one.ok for one in course.windows] == [50] * 3


def test_a_window_grows_tenfold_at_most() -> None:
    course = Course(Plan(window_s=0.1), CLOSED)
    assert play(course, parts([5.0] * 100, 1)) == 30
    assert [one.ok for one in course.windows] == [10] * 3


def test_nothing_but_errors_ends_after_three_windows() -> None:
    course = Course(Plan(window_s=0.1), CLOSED)
    slices = parts([5.0] * 100, 0)
    for part in slices:
        part.failures = {3: 60}
    assert play(course, slices) == 3
    assert not course.stable
    assert not course.stalled


@pytest.mark.parametrize("plan", [Plan(window_s=0.1), Plan(window_s=0.1, requests=10_000)])
def test_a_server_that_stops_answering_ends_the_measurement(plan: Plan) -> None:
    course = Course(plan, CLOSED)
    # Not so even that these alone would be stable.
    before = parts([1.0, 5.0], 60)
    assert play(course, [*before, *parts([5.0] * 100, 0, start=2)]) == 2 + 31
    assert course.stalled
    assert not course.stable
    assert merged(course.figures).ok == 120


def test_an_open_loop_with_nothing_under_way_is_not_a_server_that_stopped() -> None:
    course = Course(Plan(window_s=0.1, duration_s=9.0), OPEN)
    assert play(course, parts([5.0] * 200, 0, in_flight=0)) == 90
    assert not course.stalled


def test_a_duration_is_kept_whatever_the_answers() -> None:
    course = Course(Plan(window_s=0.1, duration_s=2.4), CLOSED)
    assert play(course, parts([1.0] * 12 + [9.0] * 30, 5)) == 24
    assert not course.stable
    assert [one.seconds for one in course.windows] == pytest.approx([0.8] * 3)


def test_a_number_of_requests_is_kept_and_judged_in_thirds() -> None:
    course = Course(Plan(requests=90), CLOSED)
    assert play(course, parts([5.0] * 100, 10)) == 9
    assert course.stable
    assert [one.ok for one in course.windows] == [30] * 3


# --- sweeps ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("7", (7,)),
        ("1,2,5", (1, 2, 5)),
        ("1:8", (1, 2, 4, 8)),
        ("3:20", (3, 6, 12, 20)),
        ("100:500:150", (100, 250, 400, 500)),
        ("1,4:16", (1, 4, 8, 16)),
        ("0.5", (0.5,)),
    ],
)
def test_values_are_lists_and_ranges(text: str, found: tuple[float, ...]) -> None:
    assert sweep.values("--rate", text) == found


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "1,,2", "1:", "8:1", "2,1", "1:2:0", "1:2:3:4", "inf", "nan"])
def test_values_that_make_no_sweep_are_refused_by_flag(text: str) -> None:
    with pytest.raises(StartError, match=r"^--rate "):
        sweep.values("--rate", text)


def test_requests_in_flight_are_dealt_out_evenly() -> None:
    def dealt(concurrency: float, connections: int | None = None) -> tuple[int, int]:
        (load,) = sweep.closed_loops([concurrency], connections)
        return load.connections, load.streams

    assert [dealt(one) for one in (1, 8, 64, 12, 11)] == [(1, 1), (8, 1), (8, 8), (6, 2), (1, 11)]
    assert [dealt(one, 4) for one in (2, 4, 16)] == [(2, 1), (4, 1), (4, 4)]
    with pytest.raises(StartError, match="--concurrency 6 over --connections 4"):
        dealt(6, 4)
    with pytest.raises(StartError, match=r"--concurrency 2\.5"):
        dealt(2.5)


def test_an_open_loop_has_room_for_as_much_as_it_may_have_under_way() -> None:
    first, second = sweep.open_loops([10, 20], None, 100, "constant")
    assert (first.connections, first.streams, first.rate, second.rate) == (8, 13, 10, 20)


def point(requests_per_second: float, mean_ms: float, *, failed: int = 0, stalled: bool = False) -> Point:
    return Point(
        load=CLOSED,
        rows=1,
        stable=True,
        windows=3,
        seconds=1.0,
        ok=int(requests_per_second),
        requests_per_second=requests_per_second,
        rows_per_second=requests_per_second,
        sent_bytes_per_second=0,
        received_bytes_per_second=0,
        latency=Latency(count=int(requests_per_second), mean_ns=mean_ms * MS, p99_ns=int(2 * mean_ms * MS)),
        failures=(Failure(code="INTERNAL", count=failed, message="no"),) if failed else (),
        stalled=stalled,
    )


# A server that is full at 4000 requests/s, asked by 1, 2, 4, 8, 16 closed loops.
SATURATING = [point(1000, 1.0), point(1950, 1.03), point(3700, 1.08), point(4000, 2.0), point(4000, 4.0)]


def test_the_knee_is_where_throughput_over_latency_is_highest() -> None:
    assert sweep.knee(SATURATING) == 2


def test_there_is_no_knee_where_more_load_still_pays_or_is_hardly_known() -> None:
    assert sweep.knee(SATURATING[:3]) is None
    assert sweep.knee(SATURATING[3:]) is None
    assert sweep.knee([point(0, 0.0)] * 3) is None


def test_a_point_with_errors_is_no_knee_and_still_a_point_beyond_it() -> None:
    assert sweep.knee([*SATURATING[:3], point(9000, 1.0, failed=1000)]) == 2


@pytest.mark.parametrize(
    ("measured", "limit_ms", "why"),
    [
        (point(1000, 1.0, failed=10), None, ""),
        (point(1000, 1.0, failed=11), None, "11 of 1011 requests failed"),
        (point(0, 0.0), None, "nothing was answered"),
        (point(1000, 1.0, stalled=True), None, "the server has stopped answering"),
        (point(1000, 1.0), 2.0, ""),
        (point(1000, 1.0), 1.9, "p99 is 2 ms, above the limit of 1.9 ms"),
    ],
)
def test_a_sweep_ends_where_more_load_is_pointless(measured: Point, limit_ms: float | None, why: str) -> None:
    assert sweep.beyond(measured, limit_ms) == why


# --- flags ------------------------------------------------------------------------------------------------


def test_flags_with_small_languages_are_read() -> None:
    assert options.shapes(["x:3,224,224", "a:0:16"]) == {"x": (3, 224, 224), "a:0": (16,)}
    assert options.integers(["0:2", "ids:-5:1000"]) == {"": (0, 2), "ids": (-5, 1000)}
    assert options.parameters(["a=true", "b=3", "c=0.5", "d=x=y"]) == {"a": True, "b": 3, "c": 0.5, "d": "x=y"}
    assert options.headers(["Authorization: Bearer x:y"]) == (("authorization", "Bearer x:y"),)


@pytest.mark.parametrize("text", ["x", "x:", ":3", "x:3,", "x:-1", "x:a"])
def test_a_shape_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(StartError, match="--shape"):
        options.shapes([text])


@pytest.mark.parametrize("text", ["2:2", "3:1", "1", "x:1"])
def test_a_range_without_an_integer_in_it_is_refused(text: str) -> None:
    with pytest.raises(StartError, match="--int-range"):
        options.integers([text])


@pytest.mark.parametrize("text", ["x", "grpc-timeout:1S", "a-bin:x", "te:x", "a b:x", "a:x\ny"])
def test_a_header_that_cannot_be_sent_is_refused(text: str) -> None:
    with pytest.raises(StartError, match="--header"):
        options.headers([text])


@pytest.mark.parametrize(
    ("address", "fits"),
    [
        ("localhost:8001", True),
        ("10.0.0.1:1", True),
        ("[::1]:8001", True),
        ("unix:/run/x", True),
        ("localhost", False),
        ("localhost:x", False),
        ("::1:8001", False),
        ("http://localhost:8001", False),
        ("", False),
    ],
)
def test_an_address_is_a_host_with_a_port_or_a_path(address: str, fits: bool) -> None:
    assert options.is_address(address) is fits
