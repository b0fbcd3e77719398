"""What tells one state of files from another, for those who read them again once they have changed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def states_of(paths: Iterable[Path]) -> tuple[object, ...]:
    """To compare with what it said before. A link that leads elsewhere is another file; a missing one counts too."""
    found: list[object] = []
    for path in paths:
        try:
            told = os.stat(path)
        except OSError as failure:
            found.append(failure.errno)
        else:
            found.append((told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns))
    return tuple(found)
