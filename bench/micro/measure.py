"""The process that measures: one build, and as little else as can be.

Run it as `python -P -S -m bench.micro.measure`, with the build first on PYTHONPATH; see `child`. It prints JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

from bench.micro.case import Case
from bench.micro.cases import all_cases

# How often an operation runs to be counted. Seldom enough that a whole round takes seconds under callgrind, and
# often enough that what happens once, such as the allocator's tidying up, is a small part of it.
SMALL_COUNT, LARGE_COUNT = 128, 8
LARGE_BYTES = 65_536
# A case that can prepare few operations at once is prepared again, up to so many times for one figure.
MOST_ROUNDS = 16


class Timed(TypedDict):
    """Nanoseconds per operation, one figure per repeat."""

    name: str
    bytes_per_op: int
    samples_ns: list[float]


class Counted(TypedDict):
    """Between marks `first_mark` and the two after it `count` operations ran, then twice as many."""

    name: str
    count: int
    first_mark: int


class Failed(TypedDict):
    """A case that this build could not do. `lacking`: it has no such function, it is not that it failed."""

    name: str
    lacking: bool
    why: str


class Measured(TypedDict):
    """What this process prints."""

    timed: list[Timed]
    counted: list[Counted]
    failed: list[Failed]


class WrongWork(Exception):
    """The calls were made and did not do what the case says."""


def measured_ns(case: Case, count: int) -> int:
    """The time that `count` operations take together; raises WrongWork if they did something else."""
    work = case.prepare(count)
    started_ns = time.perf_counter_ns()
    last = work.run()
    ended_ns = time.perf_counter_ns()
    if not work.done(last):
        raise WrongWork(f"{case.name}: not done")
    return ended_ns - started_ns


def timed(case: Case, repeats: int, sample_ns: int) -> Timed:
    """Time a case `repeats` times, each time for `sample_ns` or longer."""
    count, took_ns = 1, measured_ns(case, 1)
    while count < case.most and took_ns < sample_ns:
        count = min(2 * count, case.most)
        took_ns = measured_ns(case, count)
    rounds = min(-(-sample_ns // took_ns), MOST_ROUNDS)
    samples_ns = [sum(measured_ns(case, count) for _ in range(rounds)) / (rounds * count) for _ in range(repeats)]
    return Timed(name=case.name, bytes_per_op=case.prepare(1).bytes_per_op, samples_ns=samples_ns)


class Marks:
    """A system call that Python itself never makes: callgrind writes down its counts whenever it sees one."""

    def __init__(self) -> None:
        self.made = 0

    def make(self) -> None:
        """Make the next one."""
        self.made += 1
        os.getppid()


def counted(case: Case, marks: Marks) -> Counted:
    """Run a case between marks."""
    often = LARGE_COUNT if case.prepare(1).bytes_per_op >= LARGE_BYTES else SMALL_COUNT
    count = max(1, min(often, case.most // 2))
    measured_ns(case, count)
    works = [case.prepare(count), case.prepare(2 * count)]
    first_mark = marks.made
    marks.make()
    for work in works:
        work.run()
        marks.make()
    return Counted(name=case.name, count=count, first_mark=first_mark)


def chosen(names: Iterable[str]) -> list[Case]:
    """The cases whose name begins with one of `names`; all of them if there are none."""
    wanted = tuple(names)
    return [case for case in all_cases() if not wanted or case.name.startswith(wanted)]


def measure(arguments: argparse.Namespace) -> Measured:
    """Every chosen case, in one of the lists."""
    found = Measured(timed=[], counted=[], failed=[])
    marks = Marks()
    for case in chosen(arguments.names):
        try:
            if arguments.what == "time":
                found["timed"].append(timed(case, arguments.repeats, arguments.sample_ns))
            else:
                found["counted"].append(counted(case, marks))
        except (ImportError, AttributeError) as failure:
            found["failed"].append(Failed(name=case.name, lacking=True, why=str(failure)))
        except Exception as failure:
            why = f"{type(failure).__name__}: {failure}"
            found["failed"].append(Failed(name=case.name, lacking=False, why=why))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["time", "instructions"])
    parser.add_argument("--build", type=Path, required=True, help="Where inferd must have been imported from.")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--sample-ns", type=int, default=1)
    parser.add_argument("--names", nargs="*", default=())
    arguments = parser.parse_args()

    import inferd

    if not Path(inferd.__file__).resolve().is_relative_to(arguments.build.resolve()):
        sys.exit(f"inferd is imported from {inferd.__file__}, not from {arguments.build}: nothing was measured")
    gc.disable()
    json.dump(measure(arguments), sys.stdout)


if __name__ == "__main__":
    main()
