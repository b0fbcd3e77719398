"""Compare findings with the magika package's own, file by file.

The package has two answers for a file: one when asked about it alone, another when asked about several files at
once. The model normalises with a variance computed as a difference of two nearly equal sums, and ONNX Runtime adds
these up in another order as soon as there is more than one row. Where the content is uniform almost nothing
remains of the difference, and the score moves: by up to 0.05 in 9,153 files. A server that batches gives the one answer
or the other, depending on who else was asking; here either counts as equal, and nothing in between.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features import Mode, Verdict
from pipeline import Finding
from scan import Unreadable

Outcome = Verdict | Unreadable


@dataclass(frozen=True, slots=True)
class Comparison:
    """One finding beside the closest answer of the package. ``alone`` tells which of its two answers that is."""

    finding: Finding
    theirs: Outcome
    alone: bool
    equal: bool

    @property
    def score_error(self) -> float:
        """How far apart the two scores are; 0 where there are not two."""
        ours, theirs = self.finding.outcome, self.theirs
        if isinstance(ours, Verdict) and isinstance(theirs, Verdict):
            return abs(ours.score - theirs.score)
        return 0.0


def load_reference(mode: Mode, *, no_dereference: bool) -> Any:
    """Load the package's model with the same settings.

    Raises:
        ImportError: the package is not installed.
    """
    # From 1.32 on, ONNX Runtime reports its use to its makers unless this is set before it is imported.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    # By name: a checker that looks in examples/ would take this very folder for the package.
    magika = importlib.import_module("magika")
    return magika.Magika(prediction_mode=magika.PredictionMode[mode.name], no_dereference=no_dereference)


def compare(findings: Iterable[Finding], reference: Any, tolerance: float) -> Iterator[Comparison]:
    """Ask the reference about every file, a second time in company if its first answer is another one."""
    for finding in findings:
        alone = _ask(reference, [finding.path])
        if same(finding.outcome, alone, tolerance):
            yield Comparison(finding, alone, alone=True, equal=True)
            continue
        company = _ask(reference, [finding.path, finding.path])
        if same(finding.outcome, company, tolerance):
            yield Comparison(finding, company, alone=False, equal=True)
        else:
            yield Comparison(finding, alone, alone=True, equal=False)


def same(ours: Outcome, theirs: Outcome, tolerance: float) -> bool:
    """Whether two outcomes agree in everything but the last digits of the score; all failures are alike."""
    if isinstance(ours, Verdict) and isinstance(theirs, Verdict):
        if (ours.label, ours.description, ours.model_label) != (
            theirs.label,
            theirs.description,
            theirs.model_label,
        ):
            return False
        return abs(ours.score - theirs.score) <= tolerance
    return isinstance(ours, Unreadable) and isinstance(theirs, Unreadable)


def _ask(reference: Any, paths: list[Path]) -> Outcome:
    try:
        result = reference.identify_paths(paths)[0]
    except OSError as err:
        return Unreadable((err.strerror or type(err).__name__).lower())
    if not result.ok:
        return Unreadable(str(result.status))
    told = result.prediction
    return Verdict(str(told.output.label), told.output.description, told.score, str(told.dl.label))
