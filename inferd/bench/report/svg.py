"""Figures of matplotlib as SVG elements that belong to a page: its colours, its fonts, nothing from elsewhere."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from inferd.errors import StartError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# matplotlib wants real colours; each of these stands for a variable of the page, which knows light and dark.
INK, MUTED, GRID, PAPER = "#000001", "#000002", "#000003", "#000004"
MEDIAN, TAIL, BAD, SHADE = "#000005", "#000006", "#000007", "#000008"
STEPS = ("#000011", "#000012", "#000013", "#000014", "#000015", "#000016")
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    PAPER: "--paper",
    MEDIAN: "--median",
    TAIL: "--tail",
    BAD: "--bad",
    SHADE: "--shade",
    **{color: f"--step{index}" for index, color in enumerate(STEPS)},
}
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "inferd",
    # Nothing that a server says may be read as a formula.
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 12,
    "axes.titlesize": 12,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": GRID,
    "grid.linewidth": 1,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "legend.borderaxespad": 0.2,
    "legend.columnspacing": 1.4,
    "legend.handlelength": 1.6,
    "lines.linewidth": 2,
    "figure.constrained_layout.use": True,
}
_LONG_NUMBER = re.compile(r"(\d+\.\d\d)\d+")
_COLOR = re.compile(r"#[0-9a-f]{6}\b")
_FONT = re.compile(r"font-family: [^;]*;? ?")


def draw(name: str, title: str, width: int, height: int, paint: Callable[[Figure], None]) -> Element:
    """Let `paint` fill a figure of so many pixels. Raises StartError if matplotlib is missing.

    `name` must be unique on the page; `title` is what a screen reader says.
    """
    try:
        from matplotlib import style
        from matplotlib.figure import Figure
    except ImportError as err:
        raise StartError("an HTML report needs matplotlib: pip install 'inferd[bench]'") from err
    text = io.StringIO()
    # 72 points to the inch is what SVG files of matplotlib always have, so points are pixels here.
    with style.context(_STYLE, after_reset=True):
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        paint(figure)
        for artist in figure.findobj():
            # Everything is drawn inside its axes anyway, and clip paths would be references.
            artist.set_clip_on(False)
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _adopt(text.getvalue(), name, title, width, height)


def _adopt(document: str, name: str, title: str, width: int, height: int) -> Element:
    svg = ElementTree.fromstring(document)
    for each in svg.iter():
        each.tag = each.tag.rpartition("}")[2]
        each.attrib = {key.rpartition("}")[2]: value for key, value in each.attrib.items()}
        each.text, each.tail = (each.text or "").strip(), ""
    for parent in list(svg.iter()):
        for child in list(parent):
            if child.tag in ("metadata", "style"):
                parent.remove(child)
    used = {each.attrib["href"] for each in svg.iter("use")}
    for each in svg.iter():
        each.attrib = dict(_attributes(each, name, used))
    svg.attrib = {"viewBox": f"0 0 {width} {height}", "role": "img", "aria-label": title}
    return svg


def _attributes(element: Element, name: str, used: set[str]) -> Iterator[tuple[str, str]]:
    """The attributes that a page needs: ids that are used, under a name of their own, and colours as variables."""
    for key, value in element.attrib.items():
        if key == "id":
            if f"#{value}" in used:
                yield key, f"{name}-{value}"
        elif key == "href":
            yield key, f"#{name}-{value[1:]}"
        elif key == "style":
            yield key, _COLOR.sub(lambda found: f"var({_VARIABLES[found[0]]})", _FONT.sub("", value))
        else:
            yield key, _LONG_NUMBER.sub(r"\1", value)
