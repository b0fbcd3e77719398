"""Figures as people read them: three significant digits and the unit that fits."""

from __future__ import annotations

import math

NOT_MEASURED = "-"

_DURATIONS = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns"))
_SIZES = ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B"))


def significant(value: float) -> str:
    """Three significant digits, never an exponent, thousands apart."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    decimals = max(0, 2 - math.floor(math.log10(abs(rounded))))
    return f"{value:,.{min(decimals, 6)}f}"


def duration(ns: float | None) -> str:
    """A duration in ns; one of 0 was not measured."""
    return _in_unit(float(f"{ns:.3g}"), _DURATIONS) if ns else NOT_MEASURED


def size(count: float) -> str:
    """An amount of memory in bytes; one of 0 was not measured."""
    return _in_unit(count, _SIZES) if count else NOT_MEASURED


def tick_duration(ns: float) -> str:
    """A duration in ns on an axis: round numbers without their zeros."""
    for factor, unit in _DURATIONS:
        if ns >= factor * 0.9999:
            return f"{ns / factor:.4g} {unit}"
    return "0"


def _in_unit(value: float, units: tuple[tuple[float, str], ...]) -> str:
    for factor, unit in units:
        if value >= factor:
            return f"{value / factor:.0f} {unit}" if factor == 1 else f"{significant(value / factor)} {unit}"
    return f"under 1 {units[-1][1]}"


def counted(count: int, noun: str) -> str:
    """So many of something."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def plain(text: str, limit: int = 300) -> str:
    """Text of a server as one printable line: no control characters reach a terminal or a page."""
    line = " ".join(text.split())
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"
