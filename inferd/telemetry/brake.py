"""Keeps one kind of trouble from filling the log."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Final

MOST: Final = 100
EVERY_S: Final = 10.0
KINDS: Final = 1024
"""So many kinds are told apart; what else there is passes."""


@dataclass(slots=True)
class _Kind:
    since_s: float
    passed: int = 0
    held: int = 0


class Brake:
    """Lets warnings and errors of one room and one wording pass MOST times in EVERY_S seconds, for each model.

    The next one that passes says how many were held back. Time is that of the records.
    """

    def __init__(self) -> None:
        self._kinds: MutableMapping[tuple[str, str, str], _Kind] = {}

    def lets(self, record: logging.LogRecord) -> bool:
        """Whether to log it. May add to its fields."""
        if record.levelno < logging.WARNING:
            return True
        # A hundred models that fail to load are a hundred things to know.
        key = (record.name, str(record.msg), str(getattr(record, "model", "")))
        kind = self._kinds.get(key)
        if kind is None:
            if len(self._kinds) >= KINDS:
                return True
            kind = self._kinds[key] = _Kind(record.created)
        if not 0 <= record.created - kind.since_s < EVERY_S:
            if kind.held:
                record.held_back = kind.held
            self._kinds[key] = kind = _Kind(record.created)
        if kind.passed == MOST:
            kind.held += 1
            return False
        kind.passed += 1
        return True
