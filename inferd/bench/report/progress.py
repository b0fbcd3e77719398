"""What a person sees while a measurement runs. The display shares the machine with the server, so it does little."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from inferd.bench.report.figures import ERRORS, P50, P99, REQUESTS, label
from inferd.bench.report.units import NOT_MEASURED, duration, plain, significant
from inferd.bench.result import Moment, Point

_REFRESH_S = 0.25
_SHOWN = 30
_RECENT = 10
_BARS = "▁▂▃▄▅▆▇█"


class Progress:
    """A live line or two on a terminal; elsewhere one plain line for each finished point."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console if console is not None else Console(stderr=True)
        self._clock = clock
        self._shown_at = -_REFRESH_S
        self._phase = ""
        self._moments: deque[Moment] = deque(maxlen=_SHOWN)
        self._errors = 0
        self._window = 0
        self._stable: bool | None = None
        # Without a thread of its own: it is drawn by whoever reports a moment.
        self._live = Live(console=self._console, auto_refresh=False, transient=True, redirect_stdout=False)

    def __enter__(self) -> Self:
        if self._console.is_interactive:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def phase(self, text: str) -> None:
        """Say what is done from now on, such as the load that is offered."""
        self._phase = plain(text)
        self._moments.clear()
        self._errors, self._window, self._stable = 0, 0, None
        self._draw()

    def moment(self, moment: Moment, *, window: int = 0, stable: bool | None = None) -> None:
        """Show the newest moment, the number of the window it belongs to, and whether the figures are stable by now."""
        self._moments.append(moment)
        self._errors += moment.errors
        self._window, self._stable = window, stable
        if self._clock() - self._shown_at >= _REFRESH_S:
            self._draw()

    def point(self, point: Point) -> None:
        """Leave a line about a finished point."""
        cells = (
            f"{REQUESTS.cell(point)} req/s, p50 {P50.cell(point)}, p99 {P99.cell(point)}, {ERRORS.cell(point)} errors"
        )
        line = f"{label(point.load)}: {cells}{'' if point.stable else ', NOT STABLE'}"
        self._console.print(Text(line), soft_wrap=True)

    def _draw(self) -> None:
        if self._live.is_started:
            self._shown_at = self._clock()
            self._live.update(self._picture(), refresh=True)

    def _picture(self) -> Text:
        picture = Text(no_wrap=True, overflow="ellipsis").append(self._phase, "bold")
        if not self._moments:
            return picture
        newest = self._moments[-1]
        picture.append("  measuring" if newest.measured else "  warming up", "cyan" if newest.measured else "yellow")
        if self._window:
            picture.append(f"  window {self._window}")
        if self._stable is not None:
            picture.append("  stable" if self._stable else "  not stable yet", "green" if self._stable else "yellow")
        picture.append(f"\n{sparkline([_rate(one) for one in self._moments]):<{_SHOWN}}", "cyan")
        recent = list(self._moments)[-_RECENT:]
        seconds = sum(one.seconds for one in recent)
        speed = significant(sum(one.ok for one in recent) / seconds) if seconds else NOT_MEASURED
        latency = f"p50 {duration(newest.p50_ns)}  p99 {duration(newest.p99_ns)}"
        picture.append(f"  {speed} req/s  {latency}  ")
        picture.append(f"{self._errors:,} errors", "bold red" if self._errors else "dim")
        return picture


def _rate(moment: Moment) -> float:
    return moment.ok / moment.seconds if moment.seconds else 0.0


def sparkline(values: list[float]) -> str:
    """Bars from zero to the largest of the values."""
    top = max(values, default=0.0)
    return "".join(_BARS[round(value / top * (len(_BARS) - 1))] if top else _BARS[0] for value in values)
