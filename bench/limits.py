"""Bare ONNX Runtime, the limit of every server: rows per second at its best batch size and threads, nothing else.

A process of its own (`python -m bench.limits MODEL FEED`) holds the sessions, so that it takes its turns, and is
paused between them, like a server. It reads a command a line and answers with a line of JSON.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from pydantic import TypeAdapter

from bench.processes import Group, Start
from bench.result import Kind, Turn
from bench.works import MAX_BATCH_SIZE, Prepared
from inferd.bench.tensors import Array
from inferd.cpus import usable_cpus

REPEATS: Final = 3
REPEAT_S: Final = 0.1
# Past a batch size that does so much worse than the best one, larger ones are not tried.
HOPELESS: Final = 0.7
ALONE_SHARE: Final = 0.25
ROOT: Final = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Best:
    """The batch size and threads with the most rows per second."""

    batch: int
    threads: int
    rows_per_second: float


@dataclass(frozen=True, slots=True)
class Ran:
    """Runs at the best batch size, and the time of a run of a single row."""

    seconds: float
    rows: int
    cpu_seconds: float
    alone_p50_ns: int


BEST: Final = TypeAdapter(Best)
RAN: Final = TypeAdapter(Ran)


class Bare:
    """The contestant: talks to the process that runs the model."""

    name = "onnxruntime"
    kind: Kind = "limit"

    def __init__(self, group: Group) -> None:
        """Finds what is best. Raises OSError if the process has ended."""
        self._group = group
        self.best = BEST.validate_json(self._ask("search"))
        self._group.pause()

    @staticmethod
    def start(work: Prepared, folder: Path) -> Start:
        """The command of the process, and its input."""
        np.savez(folder / "feed.npz", **work.feed)  # type: ignore[arg-type]
        return Start((sys.executable, "-m", "bench.limits", work.model, folder / "feed.npz"), folder=ROOT)

    @property
    def note(self) -> str:
        """What is best."""
        return f"batch {self.best.batch}, {self.best.threads} threads"

    def turn(self, number: int, seconds: float) -> Turn:
        """A row counts as a request. Raises OSError if the process has ended."""
        self._group.resume()
        try:
            ran = RAN.validate_json(self._ask(f"run {seconds}"))
            rss_bytes = self._group.rss_bytes()
        finally:
            self._group.pause()
        return Turn(
            round=number,
            seconds=ran.seconds,
            ok=ran.rows,
            requests_per_second=ran.rows / ran.seconds,
            cpu_us_per_request=ran.cpu_seconds / ran.rows * 1e6,
            alone_p50_ns=ran.alone_p50_ns,
            rss_bytes=rss_bytes,
        )

    def _ask(self, command: str) -> str:
        asked, answered = self._group.process.stdin, self._group.process.stdout
        if asked is None or answered is None:
            raise OSError("the process has no pipes")
        asked.write(f"{command}\n")
        asked.flush()
        line = answered.readline()
        if not line:
            self._group.process.wait()
            raise OSError(self._group.ended() or "ended")
        return line


# --- inside the process --------------------------------------------------------------------------------------


class _Runs:
    """A session with so many threads, and a binding for one batch size."""

    def __init__(self, model: str, feed: Mapping[str, Array], batch: int, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.bind(feed, batch)

    def bind(self, feed: Mapping[str, Array], batch: int) -> None:
        """From now on run so many equal rows."""
        self._binding = self._session.io_binding()
        for name, values in feed.items():
            self._binding.bind_cpu_input(name, np.repeat(values, batch, axis=0))
        for output in self._session.get_outputs():
            self._binding.bind_output(output.name)

    def times_ns(self, seconds: float) -> Iterator[int]:
        """Run times, one after the other, for so long; at least one."""
        end_ns = time.perf_counter_ns() + int(seconds * 1e9)
        begun_ns = 0
        while begun_ns < end_ns:
            begun_ns = time.perf_counter_ns()
            self._session.run_with_iobinding(self._binding)
            yield time.perf_counter_ns() - begun_ns


def _search(model: str, feed: Mapping[str, Array]) -> Best:
    best = Best(1, 1, 0.0)
    for threads in range(1, max(1, int(usable_cpus())) + 1):
        runs = _Runs(model, feed, 1, threads)
        batch, highest = 1, 0.0
        while batch <= MAX_BATCH_SIZE:
            runs.bind(feed, batch)
            next(runs.times_ns(0))
            rate = max(batch * 1e9 / np.median([*runs.times_ns(REPEAT_S)]) for _ in range(REPEATS))
            highest = max(highest, rate)
            best = max(best, Best(batch, threads, rate), key=lambda one: one.rows_per_second)
            if rate < HOPELESS * highest:
                break
            batch *= 2
    return best


def _run(together: _Runs, alone: _Runs, batch: int, seconds: float) -> Ran:
    list(together.times_ns(seconds * ALONE_SHARE))
    cpu_seconds, begun = time.process_time(), time.perf_counter()
    runs = sum(1 for _ in together.times_ns(seconds))
    cpu_seconds, took = time.process_time() - cpu_seconds, time.perf_counter() - begun
    alone_p50_ns = int(np.median([*alone.times_ns(seconds * ALONE_SHARE)]))
    return Ran(took, batch * runs, cpu_seconds, alone_p50_ns)


def _serve(model: str, feed: Mapping[str, Array]) -> None:
    best = Best(1, 1, 0.0)
    together = alone = None
    for line in sys.stdin:
        command, _, seconds = line.partition(" ")
        if command.strip() == "search":
            best = _search(model, feed)
            together, alone = (_Runs(model, feed, batch, best.threads) for batch in (best.batch, 1))
            print(BEST.dump_json(best).decode(), flush=True)
        elif together is not None and alone is not None:
            print(RAN.dump_json(_run(together, alone, best.batch, float(seconds))).decode(), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1], dict(np.load(sys.argv[2])))
