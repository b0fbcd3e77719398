"""A load that may crash, in a process that may: ``python -m inferd.trial FILE`` loads a model file and ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from inferd.device import CpuDevice
from inferd.errors import ModelFailed
from inferd.session import Session, SessionOptions

LONGEST_REASON = 2000


async def try_load(path: Path, timeout_s: float | None) -> None:
    """Load a model file in another process. Raises ModelFailed with how that ended, TimeoutError after `timeout_s`."""
    # From a thread, and not by asyncio: uvloop forks, and what gRPC does in a child that is forked has crashed it.
    # This way there is no fork that libraries hear of.
    process = await asyncio.to_thread(_start, path)
    try:
        _, said = await asyncio.to_thread(process.communicate, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        raise ModelFailed(f"{path}: the process that tried to load it was ended by {name}")
    if process.returncode > 0:
        reason = said.decode("utf-8", "replace").strip()[-LONGEST_REASON:]
        raise ModelFailed(reason or f"{path}: the process that tried to load it ended with {process.returncode}")


def _start(path: Path) -> subprocess.Popen[bytes]:
    command = (sys.executable, "-m", "inferd.trial", str(path))
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)


def main() -> int:
    """Try the file that the command line names; what is wrong with it goes to the standard error."""
    try:
        Session(Path(sys.argv[1]), SessionOptions(), CpuDevice())
    except ModelFailed as failure:
        sys.stderr.write(f"{failure}\n")
        sys.stderr.flush()
        return 1
    return 0


if __name__ == "__main__":
    # At once: the load was the question, and an interpreter that ends around native code may crash by itself.
    os._exit(main())
