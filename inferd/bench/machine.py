"""The machine that the load runner runs on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from inferd.bench.result import Machine


def this_machine() -> Machine:
    """What a reader must know of it to compare figures."""
    return Machine(
        processor=_processor(),
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        system=platform.platform(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
    )


def _processor() -> str:
    try:
        told = Path("/proc/cpuinfo").read_text()
    except OSError:
        told = ""
    names = [line.partition(":")[2].strip() for line in told.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()
