from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import bench_reports
import pytest

from inferd.bench.report import load_report, page, plots, svg
from inferd.bench.report.timeline import steps
from inferd.bench.report.units import duration
from inferd.bench.result import Latency, Load, Moment, Report
from inferd.errors import StartError

pytest.importorskip("matplotlib")

Make = Callable[[], Report]

VOID = {"meta", "br", "link", "img", "input", "hr"}
SAMPLES = (
    bench_reports.single,
    bench_reports.concurrency_sweep,
    bench_reports.rate_sweep,
    bench_reports.bare,
    bench_reports.refused,
    bench_reports.hostile,
    bench_reports.report,
)


class Document(HTMLParser):
    """What a browser would see; complains about elements that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)

    @property
    def shown(self) -> str:
        return " ".join(" ".join(self.text).split())

    def values(self, name: str) -> list[str]:
        return [value for _, key, value in self.attributes if key == name]


@cache
def page_of(make: Make) -> str:
    return page.html(make())


def headings(make: Make) -> list[str]:
    return re.findall("<h2>(.*?)</h2>", page_of(make))


# --- the page --------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", SAMPLES)
def test_a_page_is_well_formed_and_needs_nothing_else(make: Make) -> None:
    html = page_of(make)
    document = Document(html)
    assert document.tags["html"] == document.tags["body"] == document.tags["h1"] == 1
    assert not document.tags.keys() & {"script", "link", "img", "iframe", "object", "embed", "image", "foreignobject"}
    assert not document.values("src")
    assert not [name for _, name, _ in document.attributes if name.startswith("on")]
    for loads in ("http://", "https://", "url(", "@import"):
        assert loads not in html


@pytest.mark.parametrize("make", SAMPLES)
def test_ids_are_unique_and_every_reference_leads_to_one(make: Make) -> None:
    document = Document(page_of(make))
    ids = document.values("id")
    assert len(ids) == len(set(ids))
    assert set(document.values("href")) <= {f"#{name}" for name in ids}


def test_a_sweep_has_three_plots_each_for_a_screen_and_a_phone() -> None:
    for make in (bench_reports.concurrency_sweep, bench_reports.rate_sweep):
        assert headings(make)[:3] == ["Throughput and latency", "Latency distribution", "Timeline"]
        document = Document(page_of(make))
        assert document.tags["svg"] == 6
        labels = Counter(value for tag, name, value in document.attributes if (tag, name) == ("svg", "aria-label"))
        assert labels == {"Latency against throughput": 2, "Latency by percentile": 2, "The run over time": 2}


def test_a_single_point_has_no_plot_of_one_dot() -> None:
    assert headings(bench_reports.single)[:2] == ["Latency distribution", "Timeline"]


def test_the_page_shows_all_figures_failures_and_how_to_repeat_it() -> None:
    report = bench_reports.rate_sweep()
    shown = Document(page_of(bench_reports.rate_sweep)).shown
    for point in report.points:
        assert duration(point.latency.p999_ns) in shown
        assert duration(point.latency.max_ns) in shown
        assert f"{point.ok:,}" in shown
    for said in (
        report.command,
        report.machine.processor,
        "inferd 0.1.0 at localhost:8001, on this machine",
        "RESOURCE_EXHAUSTED",
        "the queue of model 'churn' is full: 256 requests wait",
        "4,210 requests had no answer",
        "latency counts from the moment a request was due",
        "8,000/s (knee)",
    ):
        assert said in shown


def test_what_was_not_measured_has_no_figure_and_no_plot() -> None:
    html = page_of(bench_reports.bare)
    assert headings(bench_reports.bare) == ["Figures", "How it was measured", "How to repeat it"]
    assert headings(bench_reports.refused)[0] == "Timeline", "errors are something to see"
    table = re.search("<table>.*?</table>", html, re.DOTALL)
    assert table is not None
    titles = re.findall('<th scope="col">(.*?)</th>', table[0])
    cells = re.findall("<td.*?>(.*?)</td>", table[0])
    # Counted, not measured: these are true zeros. Columns that nobody measured are left out.
    assert dict(zip(titles[1:], cells, strict=True)) == {"errors": "0", "unanswered": "0", "stable": "NO"}


def test_hostile_text_stays_text() -> None:
    html = page_of(bench_reports.hostile)
    document = Document(html)
    assert "script" not in document.tags
    assert "<script" not in html
    assert "&lt;script&gt;alert('1')&lt;/script&gt; $x^2$ &amp;" in html
    assert document.tags["style"] == 1
    assert not [char for char in html if not char.isprintable() and char != "\n"]


def test_text_in_a_plot_is_escaped_and_never_a_formula() -> None:
    said = "<script>$\\frac{1}{2}$</script> & $x^2$"
    drawn = svg.draw("x", said, 300, 200, lambda figure: figure.subplots().set_title(said) and None)
    document = Document(ElementTree.tostring(drawn, encoding="unicode", method="html"))
    assert said in document.shown
    assert document.values("aria-label") == [said]
    assert "script" not in document.tags


def test_colours_are_those_of_the_page_by_day_and_by_night() -> None:
    html = page_of(bench_reports.rate_sweep)
    used = set(re.findall(r"var\((--[a-z0-9]+)\)", html))
    light, dark = html.split("prefers-color-scheme: dark", 1)
    for variable in used:
        assert f"{variable}: #" in light
        assert f"{variable}: #" in dark
    body = html.split("</style>", 1)[1]
    assert not re.search(r"(fill|stroke|color): *(#|rgb|black|white)", body)


def test_the_same_report_makes_the_same_page() -> None:
    assert page.html(bench_reports.concurrency_sweep()) == page_of(bench_reports.concurrency_sweep)


def test_a_matplotlibrc_changes_nothing() -> None:
    import matplotlib

    report, before = bench_reports.single(), page_of(bench_reports.single)
    with matplotlib.rc_context(
        {"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path", "text.parse_math": True}
    ):
        assert page.html(report) == before
        assert matplotlib.rcParams["font.size"] == 30


def test_matplotlib_is_imported_for_a_page_only_and_pyplot_never() -> None:
    # pyplot keeps every figure that it ever made, and importing matplotlib takes longer than a short measurement.
    script = (
        "import sys, bench_reports; from inferd.bench.report import page; assert 'matplotlib' not in sys.modules;"
        "page.html(bench_reports.single()); assert 'matplotlib.pyplot' not in sys.modules"
    )
    tests = Path(bench_reports.__file__).parent
    ran = subprocess.run([sys.executable, "-c", script], cwd=tests, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_twelve_points_make_a_small_page() -> None:
    points = bench_reports.rate_sweep().points * 2
    assert len(page.html(bench_reports.report(*points, sweep="rate")).encode()) < 500_000


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(StartError, match=r"pip install 'inferd\[bench\]'"):
        page.write(bench_reports.single(), tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_a_page_is_written_as_utf_8(tmp_path: Path) -> None:
    page.write(bench_reports.single(), tmp_path / "report.html")
    assert "µs" in (tmp_path / "report.html").read_text(encoding="utf-8")
    with pytest.raises(StartError, match="cannot be written: No such file"):
        page.write(bench_reports.single(), tmp_path / "missing" / "report.html")


# --- plots -----------------------------------------------------------------------------------------


def test_the_percentile_curve_passes_through_the_percentiles() -> None:
    times = Latency(count=1_000, buckets=tuple((value, 1) for value in range(1, 1_001)))
    nines, values = plots.curve(times)
    assert nines[-1] == pytest.approx(3), "of a thousand answers none lies beyond 99.9 %"
    assert (values[0], values[-1]) == (1, 1_000)
    for at, value in zip(nines, values, strict=True):
        assert value == pytest.approx(1_000 * (1 - 10**-at), abs=1.01)


def test_without_buckets_the_curve_is_made_of_the_figures() -> None:
    times = Latency(count=150, min_ns=1, p50_ns=2, p90_ns=3, p99_ns=4, p999_ns=5, max_ns=6)
    assert plots.curve(times)[1] == [1, 2, 3, 4, 6]


def test_of_many_points_the_ends_and_the_knee_are_drawn() -> None:
    one = bench_reports.single().points[0]
    points = [one.model_copy(update={"load": Load(connections=1, streams=count)}) for count in range(1, 13)]
    for knee in range(12):
        drawn = plots.chosen_points(bench_reports.report(*points, sweep="concurrency", knee=knee))
        assert len(drawn) == 6
        assert {points[0], points[knee], points[-1]} <= set(drawn)


def moment(start_s: float, ok: int, p50_ns: int, p99_ns: int, measured: bool = True) -> Moment:
    return Moment(start_s=start_s, seconds=1.0, measured=measured, ok=ok, errors=1, p50_ns=p50_ns, p99_ns=p99_ns)


def test_joined_moments_keep_the_worst_p99_and_skip_those_without_answers() -> None:
    timeline = (moment(0, 10, 5, 90), moment(1, 0, 0, 0), moment(2, 20, 7, 30))
    point = bench_reports.single().points[0].model_copy(update={"timeline": timeline})
    (run,) = steps((point,), most=1)
    (step,) = run
    assert (step.start_s, step.end_s) == (0, 3)
    assert (step.answers_per_second, step.errors_per_second) == (10, 1)
    assert (step.p50_ns, step.p99_ns) == (6, 90)


def test_moments_in_and_out_of_the_figures_are_not_joined() -> None:
    timeline = (moment(0, 1, 1, 1, measured=False), moment(1, 1, 1, 1))
    point = bench_reports.single().points[0].model_copy(update={"timeline": timeline})
    assert [step.measured for run in steps((point,), most=1) for step in run] == [False, True]


def test_errors_of_the_warm_up_are_drawn_over_its_shade() -> None:
    drawn = ElementTree.tostring(plots.timeline(bench_reports.refused(), "timeline", 900, 400), encoding="unicode")
    shades, errors = drawn.rindex("var(--shade)"), drawn.index("var(--bad)")
    assert shades < errors


def test_points_follow_each_other_on_the_timeline() -> None:
    point = bench_reports.single().points[0].model_copy(update={"timeline": (moment(0, 1, 1, 1), moment(1, 1, 1, 1))})
    runs = steps((point, point), most=100)
    assert [run[0].start_s for run in runs] == [0, 2]


# --- reading one back ------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [bench_reports.single, bench_reports.concurrency_sweep, bench_reports.rate_sweep])
def test_a_report_survives_being_stored(make: Make, tmp_path: Path) -> None:
    report = make()
    path = tmp_path / "report.json"
    path.write_text(report.model_dump_json(by_alias=True, indent=2))
    assert load_report(path) == report


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ("not json", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        ("[1]", "not a report"),
        ("{}", "not a report"),
        ('{"schema": "inferd-bench/2"}', "has schema 'inferd-bench/2', this version reads 'inferd-bench/1'"),
        ('{"schema": "inferd-bench/1"}', "damaged or edited: started: Field required"),
    ],
)
def test_what_is_not_a_report_is_refused_in_one_line(stored: str | bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(stored.encode() if isinstance(stored, str) else stored)
    with pytest.raises(StartError, match=re.escape(message)) as caught:
        load_report(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_report_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"nowhere\.json: cannot be read: No such file"):
        load_report(tmp_path / "nowhere.json")
