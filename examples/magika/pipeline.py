"""Classify many files with many requests in flight; whoever runs the model is handed in.

One thread reads files and decides, so nothing here needs a lock: an answer, whichever thread it arrives on,
only goes into a queue.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from features import Config, Mode, Scores, Tokens, Verdict, decide
from scan import Unreadable, inspect

# Takes rows [n, row_size] and a callback, and calls it once, from any thread, with scores [n, labels] or an error.
Submit = Callable[[Tokens, Callable[[Scores | Exception], None]], None]


@dataclass(frozen=True, slots=True)
class Finding:
    """One path and what was found there."""

    path: Path
    outcome: Verdict | Unreadable


@dataclass(frozen=True, slots=True)
class Load:
    """How the rows are sent: ``rows`` to a request, and how many requests may be unanswered."""

    rows: int
    in_flight: int


def classify(
    paths: Iterable[Path],
    config: Config,
    submit: Submit,
    load: Load,
    *,
    mode: Mode = Mode.HIGH_CONFIDENCE,
    no_dereference: bool = False,
) -> Iterator[Finding]:
    """Yield a Finding for every path, in the order in which the answers arrive.

    Raises:
        Exception: what ``submit`` handed to its callback, as it is. Answers still under way are then ignored.
    """
    answers: queue.SimpleQueue[tuple[Sequence[Path], Scores | Exception]] = queue.SimpleQueue()
    waiting: list[tuple[Path, Tokens]] = []
    unanswered = 0

    def send() -> None:
        sent = [path for path, _ in waiting]
        rows = np.stack([row for _, row in waiting])
        waiting.clear()
        submit(rows, lambda scores: answers.put((sent, scores)))

    for path in paths:
        outcome = inspect(path, config, no_dereference=no_dereference)
        if isinstance(outcome, Verdict | Unreadable):
            yield Finding(path, outcome)
            continue
        waiting.append((path, outcome))
        if len(waiting) < load.rows:
            continue
        if unanswered == load.in_flight:
            yield from _decided(*answers.get(), config, mode)
            unanswered -= 1
        send()
        unanswered += 1
    if waiting:
        send()
        unanswered += 1
    for _ in range(unanswered):
        yield from _decided(*answers.get(), config, mode)


def _decided(paths: Sequence[Path], scores: Scores | Exception, config: Config, mode: Mode) -> Iterator[Finding]:
    if isinstance(scores, Exception):
        raise scores
    if len(scores) != len(paths):
        raise ValueError(f"asked for {len(paths)} files, got answers for {len(scores)}")
    for path, row in zip(paths, scores, strict=True):
        yield Finding(path, decide(row, config, mode))
