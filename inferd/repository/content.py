"""What a folder holds, as one short text that differs once anything in it was written anew. Reads no file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path


def content_of(*parts: Path | str) -> str:
    """The content of files, folders and plain texts, in this order.

    Of each file its name, size, time of change and number on disk; so a copy with equal bytes is another content,
    which costs a needless load, and a file that is still being written is another content at each look.
    Raises OSError for what cannot be looked at.
    """
    seen = hashlib.sha256()
    for part in parts:
        for line in [part] if isinstance(part, str) else _lines(part):
            seen.update(f"{line}\n".encode("utf-8", "surrogateescape"))
    return seen.hexdigest()


def _lines(path: Path) -> Iterator[str]:
    if not os.path.lexists(path):
        return
    yield _line(path)
    if path.is_dir() and not path.is_symlink():
        for entry in sorted(_names(path)):
            yield from _lines(path / entry)


def _names(folder: Path) -> Iterable[str]:
    return (entry.name for entry in os.scandir(folder) if not entry.name.startswith("."))


def _line(path: Path) -> str:
    try:
        found = path.stat()
    except FileNotFoundError:  # a link that leads nowhere
        found = path.lstat()
    # The time of a folder says that a name in it came or went, and the names are here by themselves.
    when = "" if path.is_dir() else f"{found.st_mtime_ns} {found.st_size} {found.st_ino}"
    return f"{path.name} {found.st_mode} {when}"
