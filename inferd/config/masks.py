"""What must not be read in a log or on a terminal: credentials that a URL carries."""

from __future__ import annotations

import re
from typing import Final

MASK: Final = "***"
# Up to the last @, as a password may have a slash in it; and what a query says for each of its names.
_CREDENTIALS: Final = re.compile(r"(?<=://)[^\s'\"]+(?=@)")
_QUERY: Final = re.compile(r"(\w://[^\s?#'\"]*\?)([^\s#'\"]+)")
_VALUE: Final = re.compile(r"(?<==)[^&]+")


def masked(text: str) -> str:
    """The text with MASK for user and password of each URL in it, and for what its query says."""
    if "://" not in text:
        return text
    text = _CREDENTIALS.sub(MASK, text)
    return _QUERY.sub(lambda found: found[1] + _VALUE.sub(MASK, found[2]), text)
