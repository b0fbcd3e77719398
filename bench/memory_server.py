"""The real `inferd` command, which besides tells what memory it holds: one line of JSON for each SIGUSR1.

`python -m bench.memory_server FD serve ...` writes to the file descriptor FD.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
from pathlib import Path
from typing import TypedDict

PROC = Path("/proc/self")


class Sample(TypedDict):
    """What the process holds, after a garbage collection. Sizes in bytes; None where there is no way to know."""

    rss: int
    uss: int
    anonymous: int
    python_blocks: int
    heap: int | None
    gc_objects: int
    threads: int
    files: int
    native: dict[str, int] | None


class _Mallinfo(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = (
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd")),
        *((name, ctypes.c_size_t) for name in ("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")),
    )


def heap_bytes() -> int | None:
    """What malloc has handed out and not got back, in all its arenas; None without glibc 2.33."""
    mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo2 is None:
        return None
    mallinfo2.restype = _Mallinfo
    found = mallinfo2()
    return int(found.uordblks + found.hblkhd)


def sample() -> Sample:
    """What this process holds now."""
    from inferd._native import live

    gc.collect()
    # First, because what follows allocates.
    mapped = {}
    for line in (PROC / "smaps_rollup").read_text().splitlines()[1:]:
        name, size, _ = line.split()
        mapped[name.rstrip(":")] = int(size) * 1024
    return Sample(
        rss=mapped["Rss"],
        uss=mapped["Private_Clean"] + mapped["Private_Dirty"],
        anonymous=mapped["Anonymous"],
        python_blocks=sys.getallocatedblocks(),
        heap=heap_bytes(),
        gc_objects=len(gc.get_objects()),
        threads=len(os.listdir(PROC / "task")),
        files=len(os.listdir(PROC / "fd")),
        native=live.snapshot(),
    )


def main() -> None:
    """Serve, and answer signals."""
    out = os.fdopen(int(sys.argv.pop(1)), "w")

    def tell(*_: object) -> None:
        print(json.dumps(sample()), file=out, flush=True)

    signal.signal(signal.SIGUSR1, tell)

    from inferd.cli import main as inferd

    inferd()


if __name__ == "__main__":
    main()
