"""How a fault in a config.pbtxt is told."""

from __future__ import annotations

from collections.abc import Iterable

from inferd.errors import RepositoryError

CONFIG_FILE = "config.pbtxt"


def fault(what: str) -> RepositoryError:
    """The error to raise for what is wrong with the file."""
    return RepositoryError(f"{CONFIG_FILE}: {what}")


def quoted(names: Iterable[str]) -> str:
    """Names as one reads them: 'a', 'b' and 'c'."""
    *first, last = [repr(name) for name in names]
    return f"{', '.join(first)} and {last}" if first else last
