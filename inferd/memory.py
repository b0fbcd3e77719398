"""Memory that was freed goes back to the system."""

from __future__ import annotations

import ctypes


def release_memory() -> None:
    """Have the C library return what it keeps of freed memory. Does nothing where it cannot (musl)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
