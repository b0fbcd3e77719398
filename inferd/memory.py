"""The C library's allocator: few heaps, and what was freed in them goes back to the system."""

from __future__ import annotations

import ctypes
from typing import Final

M_ARENA_MAX: Final = -8  # malloc.h of glibc
ARENAS: Final = 2


def share_heaps() -> None:
    """Have threads that are started from now on share heaps. Does nothing where the C library is not glibc.

    By itself glibc gives each thread one of its own, up to eight for each processor, and threads that load models leave
    pieces of many heaps in use: 25 swaps of an 8 MB model kept 53 MB, and keep nothing this way.
    """
    choose = getattr(ctypes.CDLL(None), "mallopt", None)
    if choose is not None:
        choose(M_ARENA_MAX, ARENAS)


def release_memory() -> None:
    """Have the C library return what it keeps of freed memory. Does nothing where it cannot."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
