"""Files on disk: which ones to look at, and the few bytes of each that the model needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from features import DIRECTORY, SYMLINK, UNKNOWN, Config, Tokens, Verdict, examine, settled


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file that could not be looked at, and why."""

    reason: str


def walk(
    roots: Iterable[Path], skip: Collection[str], on_refused: Callable[[Path, Unreadable], None]
) -> Iterator[Path]:
    """Yield every file below the roots once, in name order, without anything that is named in ``skip``.

    A link to a folder is yielded and not followed, so a loop of links ends. A folder that cannot be listed
    goes to ``on_refused``. A root that is missing is yielded: looking at it says so.
    """
    seen: set[Path] = set()
    for root in roots:
        for path in _below(root, skip, on_refused):
            if path not in seen:
                seen.add(path)
                yield path


def _below(root: Path, skip: Collection[str], on_refused: Callable[[Path, Unreadable], None]) -> Iterator[Path]:
    def refuse(err: OSError) -> None:
        on_refused(Path(err.filename), _why(err))

    if not os.path.isdir(root):
        yield root
        return
    for folder, subfolders, files in os.walk(root, onerror=refuse):
        here = Path(folder)
        links = {name for name in subfolders if os.path.islink(here / name)}
        subfolders[:] = sorted(name for name in subfolders if name not in skip and name not in links)
        yield from (here / name for name in sorted({*files, *links}) if name not in skip)


def _why(err: OSError) -> Unreadable:
    return Unreadable((err.strerror or type(err).__name__).lower())


def inspect(path: Path, config: Config, *, no_dereference: bool = False) -> Verdict | Tokens | Unreadable:
    """Look at one path as Magika does: links are followed unless told otherwise, only regular files are opened."""
    try:
        if no_dereference and path.is_symlink():
            return settled(SYMLINK, config)
        if not path.exists():
            return Unreadable("no such file or directory")
        if path.is_dir():
            return settled(DIRECTORY, config)
        if not path.is_file():
            # Opening a pipe or a device could block for ever.
            return settled(UNKNOWN, config)
        if not os.access(path, os.R_OK):
            return Unreadable("permission denied")
        with path.open("rb") as file:
            size_bytes = file.seek(0, os.SEEK_END)
            block_size = min(size_bytes, config.block_size)
            file.seek(0)
            first_block = file.read(block_size)
            if size_bytes <= config.block_size:
                last_block = first_block
            else:
                file.seek(size_bytes - block_size)
                last_block = file.read(block_size)
    except OSError as err:
        return _why(err)
    return examine(size_bytes, first_block, last_block, config)
