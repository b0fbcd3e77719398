"""The cgroups that this process is in: folders of version 2 or 1 in which the kernel tells limits and use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

PROC: Final = Path("/proc")
CGROUPS: Final = Path("/sys/fs/cgroup")
# Version 1 says "no limit" with a number near the largest that there is.
_NO_LIMIT: Final = 1 << 60
# The longest of the files has some 70 lines.
_MOST: Final = 1 << 16


def folders(controller: str, proc_root: Path = PROC, cgroup_root: Path = CGROUPS) -> Iterator[tuple[int, Path]]:
    """Version and folder of each cgroup that may limit this process, innermost first; not all need be there."""
    for line in text(proc_root / "self" / "cgroup").splitlines():
        _, _, controllers_and_path = line.partition(":")
        controllers, colon, path = controllers_and_path.partition(":")
        if not colon:
            continue
        if not controllers:
            # "unified" is where version 2 lies on a machine that has both versions.
            for mount in (cgroup_root, cgroup_root / "unified"):
                yield from ((2, folder) for folder in _upwards(mount, path))
        elif controller in controllers.split(","):
            for mount in (cgroup_root / controllers, cgroup_root / controller):
                yield from ((1, folder) for folder in _upwards(mount, path))


def text(file: Path) -> str:
    """What a file says; nothing if it cannot be read."""
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """A cgroup whose processes are killed once they use more than `limit_bytes` together."""

    folder: Path
    version: int
    limit_bytes: int


class MemoryUse:
    """How much of a limit is used, for who looks often: its files stay open, so none need be to spare."""

    def __init__(self, limit: MemoryLimit) -> None:
        """Opens nothing yet."""
        is_new = limit.version == 2
        self._used = _Open(limit.folder / ("memory.current" if is_new else "memory.usage_in_bytes"))
        self._stat = _Open(limit.folder / "memory.stat")
        self._idle = "inactive_file" if is_new else "total_inactive_file"

    def used_bytes(self, exact_from: int = 0) -> int:
        """What counts against the limit now, without files' pages that the kernel would give up first.

        Below `exact_from` with them: that is one short file to read, and the other one is dear to the kernel.
        """
        said = self._used.text().strip()
        used = int(said) if said.isdecimal() else 0
        if used < exact_from:
            return used
        return max(used - _counted(self._stat.text(), self._idle), 0)

    def close(self) -> None:
        """Close its files."""
        self._used.close()
        self._stat.close()


class _Open:
    """A file of the kernel's, opened once it is read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def text(self) -> str:
        """What it says now; nothing if it cannot be read."""
        try:
            if self._file is None:
                self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            return os.pread(self._file, _MOST, 0).decode("ascii", "replace")
        except OSError:
            return ""

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def memory_limit(proc_root: Path = PROC, cgroup_root: Path = CGROUPS) -> MemoryLimit | None:
    """The smallest memory limit that holds for this process; None if there is none, or none can be read."""
    found: list[MemoryLimit] = []
    for version, folder in folders("memory", proc_root, cgroup_root):
        limit = _number(folder / ("memory.max" if version == 2 else "memory.limit_in_bytes"))
        if limit is not None and limit < _NO_LIMIT:
            found.append(MemoryLimit(folder, version, limit))
    return min(found, key=lambda one: one.limit_bytes, default=None)


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    # A container may be told the path of its cgroup on the host while the mount shows only its own part of
    # the tree. Folders that are not there have nothing to read, and the mount itself always comes last.
    inside = PurePosixPath(*(part for part in PurePosixPath(path).parts if part not in ("/", "..")))
    for folder in (inside, *inside.parents):
        yield mount / folder


def _number(file: Path) -> int | None:
    # "max" is no limit.
    said = text(file).strip()
    return int(said) if said.isdecimal() else None


def _counted(said: str, name: str) -> int:
    for line in said.splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdecimal():
            return int(value)
    return 0
