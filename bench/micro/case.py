"""A case: an operation, what it is done to, and the proof that it was done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import starmap
from operator import call

Call = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """Calls to make, each a callable and its arguments, and whether they did their work.

    `done` is asked after the last call, with its result. `bytes_per_op` are those of the message, rows or answer
    that an operation is about, whether or not it touches them all; 0 if it is about none.
    """

    calls: Iterable[Call]
    done: Callable[[object], bool]
    bytes_per_op: int = 0

    def run(self) -> object:
        """Make the calls, from C and without a line of Python in between; the result of the last one."""
        last = deque(starmap(call, self.calls), maxlen=1)
        return last[0] if last else None


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table.

    `prepare(count)` sets up `count` operations; only running them is measured. What an operation makes and drops
    is freed while it is measured, as it is in a server. `most` bounds the operations prepared at once, where each
    needs a request of its own.
    """

    op: str
    subject: str
    prepare: Callable[[int], Work]
    most: int = 1_000_000

    @property
    def name(self) -> str:
        """How the case is called in tables, files and on the command line."""
        return f"{self.op}: {self.subject}"
