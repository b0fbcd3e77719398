"""The last errors that clients were told, so that an operator sees what they saw. Bounded, and never more than that."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from inferd.errors import InferdError

KEPT: Final = 50


@dataclass(slots=True)
class Told:
    """One text that clients were told: with which code, how often, and when last (seconds since 1970)."""

    code: str
    text: str
    count: int
    last_s: float


class RecentErrors:
    """The `kept` texts told last; the same text again is counted, not kept twice. Belongs to the loop thread."""

    def __init__(self, kept: int = KEPT, clock: Callable[[], float] = time.time) -> None:
        self._kept, self._clock = kept, clock
        self._told: OrderedDict[tuple[int, str], Told] = OrderedDict()

    def note(self, failure: InferdError) -> None:
        """A client is told of this failure."""
        key = (failure.code, failure.public_text)
        told = self._told.get(key)
        if told is None:
            self._told[key] = Told(failure.code.name, key[1], 1, self._clock())
            if len(self._told) > self._kept:
                self._told.popitem(last=False)
            return
        told.count += 1
        told.last_s = self._clock()
        self._told.move_to_end(key)

    def listed(self) -> list[Told]:
        """What was told, the latest first."""
        return list(reversed(self._told.values()))
