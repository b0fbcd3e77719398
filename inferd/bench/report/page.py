"""A Report as one HTML file that needs nothing else, not even a script.

It is built as a tree of elements, so whatever a server said is escaped when the tree is written: there is no place
where one could forget to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from inferd.bench.report import figures, plots
from inferd.bench.report.figures import Column, Notice
from inferd.bench.report.style import CSS
from inferd.bench.report.units import NOT_MEASURED, plain
from inferd.bench.result import Point, Report
from inferd.errors import StartError

_WIDE, _NARROW = 980, 370
_TOP_LEVEL = {"h1", "h2", "p", "div", "figure", "figcaption", "svg", "g", "path", "text", "table", "tr", "dt", "pre"}


def write(report: Report, path: Path) -> None:
    """Write the page. Raises StartError if matplotlib is missing or the file cannot be written."""
    page = html(report)
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as err:
        raise StartError(f"{path}: cannot be written: {err.strerror}") from err


def html(report: Report) -> str:
    """The page as text, the same for the same Report. Raises StartError if matplotlib is missing."""
    title = f"{plain(report.subject.model)}: inferd bench"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", CSS),
    )
    root = element("html", head, element("body", *_body(report)), lang="en")
    for each in root.iter():
        if each.tag in _TOP_LEVEL and not each.tail:
            each.tail = "\n"
    return "<!doctype html>\n" + ElementTree.tostring(root, encoding="unicode", method="html") + "\n"


def element(tag: str, *children: Element | str, **attributes: str) -> Element:
    """An element with text and elements in it; `class_` is the attribute class."""
    made = Element(tag, {name.rstrip("_"): value for name, value in attributes.items()})
    for child in children:
        if isinstance(child, Element):
            made.append(child)
        elif len(made):
            made[-1].tail = (made[-1].tail or "") + child
        else:
            made.text = (made.text or "") + child
    return made


def _body(report: Report) -> Iterator[Element]:
    facts = dict(figures.facts(report))
    yield element("h1", facts["model"])
    yield element("p", f"{facts['server']}. {facts['load'].capitalize()}.", class_="subtitle")
    said = list(figures.notices(report))
    yield from (_notice(notice) for notice in said if notice.bad)
    yield from _summary(report)
    yield from (_notice(notice) for notice in said if not notice.bad)
    yield from _plots(report)
    yield from _tables(report)
    yield element("h2", "How to repeat it")
    yield element("pre", facts.pop("command"))
    yield element(
        "dl", *(element(tag, text) for fact in facts.items() for tag, text in zip(("dt", "dd"), fact, strict=True))
    )


def _notice(notice: Notice) -> Element:
    kind = "notice bad" if notice.bad else "notice"
    return element("div", element("strong", f"{notice.title}: "), notice.text, class_=kind)


# --- summary ---------------------------------------------------------------------------------------


def _summary(report: Report) -> Iterator[Element]:
    point = figures.headline(report)
    if point is None:
        return
    why = "the knee" if point is figures.knee(report) else "the most answers per second"
    among = f", {why} of {len(report.points)} loads" if len(report.points) > 1 else ""
    yield element("p", f"At {figures.label(point.load)}{among}:", class_="muted")
    columns = (figures.REQUESTS, figures.P50, figures.P99, figures.ERRORS, figures.CPU, figures.RSS, figures.MEAN_BATCH)
    tiles = [_tile(column, point) for column in columns if _measured(column, (point,))]
    yield element("div", *tiles, class_="tiles")


def _tile(column: Column, point: Point) -> Element:
    bad = column is figures.ERRORS and point.failures
    name = element("div", column.title, class_="name")
    return element(
        "div", name, element("div", column.cell(point), class_="figure bad" if bad else "figure"), class_="tile"
    )


# --- plots -----------------------------------------------------------------------------------------

_Plot = Callable[[Report, str, int, int], Element]


def _plots(report: Report) -> Iterator[Element]:
    if any(point.latency.count for point in report.points):
        if len(report.points) > 1:
            text = "One mark per load, named beside it: to the right is more, up is slower."
            yield from _plot(
                report, "Throughput and latency", text, plots.throughput, 380, 620 if report.sweep == "rate" else 330
            )
        chosen, answered = len(plots.chosen_points(report)), sum(point.latency.count > 0 for point in report.points)
        text = "How many percent of the answers came within which time; each step to the right is ten times rarer."
        if chosen < answered:
            text += f" {chosen} of {answered} loads are drawn."
        yield from _plot(report, "Latency distribution", text, plots.percentiles, 380, 330)
    if any(moment.ok or moment.errors for point in report.points for moment in point.timeline):
        text = "Shaded: moments that no figure counts, such as the warm-up. Moments drawn as one show their worst p99."
        yield from _plot(report, "Timeline", text, plots.timeline, 460, 460)


def _plot(report: Report, title: str, text: str, plot: _Plot, wide: int, narrow: int) -> Iterator[Element]:
    name = title.lower().replace(" ", "-")
    yield element("h2", title)
    # Drawn twice: scaled down to a phone the large one could not be read. Style sheets show one of the two.
    yield element(
        "figure",
        element("figcaption", text),
        element("div", plot(report, f"{name}-wide", _WIDE, wide), class_="wide"),
        element("div", plot(report, f"{name}-narrow", _NARROW, narrow), class_="narrow"),
    )


# --- tables ----------------------------------------------------------------------------------------


def _tables(report: Report) -> Iterator[Element]:
    if not report.points:
        return
    yield element("h2", "Figures")
    flow, trouble = (figures.REQUESTS, figures.ROWS), (figures.ERRORS, figures.UNANSWERED, figures.STABLE)
    yield _table(report, (*flow, *figures.LATENCY, *trouble))
    yield element("p", "-: not measured, or too few answers for this percentile.", class_="muted")
    costs = (*figures.BYTES, *figures.SERVER)
    if any(_measured(column, report.points) for column in costs):
        yield element("h2", "Bytes and the server's cost")
        yield _table(report, costs)
    yield element("h2", "How it was measured")
    yield _table(report, (figures.CONNECTIONS, *figures.DETAILS))
    if any(point.failures for point in report.points):
        yield element("h2", "Failures")
        yield _failures(report)
    if any(point.statistics for point in report.points):
        yield element("h2", "The server's own statistics")
        yield element("p", "Times per request; mean batch is inferences per execution.", class_="muted")
        yield _table(report, (*figures.STATISTICS, figures.INFERENCES))
    if any(point.answers for point in report.points):
        yield element("h2", "Answers compared with what was expected")
        yield _table(report, figures.ANSWERS)


def _measured(column: Column, points: Sequence[Point]) -> bool:
    return any(column.cell(point) != NOT_MEASURED for point in points)


def _table(report: Report, columns: Sequence[Column]) -> Element:
    """One row per point; columns that nobody measured are left out."""
    load = figures.load_column(report.points)
    shown = [column for column in columns if _measured(column, report.points)]
    rows = [element("tr", *(element("th", column.title, scope="col") for column in (load, *shown)))]
    turn = figures.knee(report)
    body = []
    for point in report.points:
        mark = " (knee)" if point is turn else ""
        cells = [element("td", column.cell(point), **_kind(column, point)) for column in shown]
        row = element("tr", element("th", load.cell(point) + mark, scope="row"), *cells)
        if point is turn:
            row.set("class", "knee")
        body.append(row)
    return element("div", element("table", element("thead", *rows), element("tbody", *body)), class_="scroll")


def _kind(column: Column, point: Point) -> dict[str, str]:
    bad = (
        (column is figures.STABLE and not point.stable)
        or (column is figures.ERRORS and point.failures)
        or (column is figures.UNANSWERED and point.unanswered)
    )
    return {"class_": "bad"} if bad else {}


def _failures(report: Report) -> Element:
    titles = (("load", ""), ("code", "words"), ("count", ""), ("first message", "words"))
    head = element("tr", *(element("th", title, scope="col", class_=kind) for title, kind in titles))
    body = [
        element(
            "tr",
            element("th", figures.label(point.load), scope="row"),
            element("td", plain(failure.code), class_="words"),
            element("td", f"{failure.count:,}"),
            element("td", plain(failure.message, limit=1000), class_="words"),
        )
        for point in report.points
        for failure in point.failures
    ]
    return element("div", element("table", element("thead", head), element("tbody", *body)), class_="scroll")
