"""Names that somebody most likely meant: for texts of errors, never for an answer."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice
from typing import Final

LONGEST: Final = 64
MOST_COMPARED: Final = 16
"""An error is told on the event loop: a comparison takes tens of microseconds where names are long."""
ALIKE: Final = 0.7


def hint(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about a name that is not known; empty if none of those known is near.

    Whoever reads it learns a known name, so give only such as they may know.
    """
    if not name or len(name) > LONGEST:
        return ""
    plain = name.casefold()
    by_plain = {one.casefold(): one for one in islice(filter(lambda one: _may_be(plain, one), known), MOST_COMPARED)}
    found = get_close_matches(plain, by_plain, n=1, cutoff=ALIKE)
    return f"; did you mean {by_plain[found[0]]!r}?" if found else ""


def _may_be(plain: str, one: str) -> bool:
    """A cheap look at both ends, as slips are seldom at both."""
    other = one.casefold()
    return 0 < len(other) <= LONGEST and (other[0] == plain[0] or other[-1] == plain[-1])
