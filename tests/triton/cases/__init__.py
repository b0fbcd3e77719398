"""The table: everything that both servers are asked."""

from __future__ import annotations

from . import (
    classification,
    control,
    inference,
    metadata,
    optional,
    parameters,
    queueing,
    refusals,
    regions,
    settings,
    shapes,
    statistics,
    streams,
    uncontrolled,
)
from .case import Case, Difference

TABLE: dict[str, tuple[Case, ...]] = {
    "metadata": metadata.CASES,
    "inference": inference.CASES,
    "refusals": refusals.CASES,
    "parameters": parameters.CASES,
    "shapes": shapes.CASES,
    "optional inputs": optional.CASES,
    "queueing": queueing.CASES,
    "classification": classification.CASES,
    "shared memory": regions.CASES,
    "streams": streams.CASES,
    "statistics": statistics.CASES,
    "settings": settings.CASES,
    "control": control.CASES,
}
CASES = {f"{table}: {case.name}": case for table, cases in TABLE.items() for case in cases}
# Asked of two others, that let nobody load or unload.
UNCONTROLLED = {case.name: case for case in uncontrolled.CASES}
DIFFERENCES: tuple[Difference, ...] = tuple(
    dict.fromkeys(case.difference for case in (*CASES.values(), *UNCONTROLLED.values()) if case.difference is not None)
)
