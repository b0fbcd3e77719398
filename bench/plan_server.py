"""The real `inferd` command, which besides writes down how long each batch ran.

`python -m bench.plan_server FILE serve ...` appends RECORD to FILE for each batch, as it ends.
"""

from __future__ import annotations

import os
import struct
import sys
import time
from pathlib import Path
from typing import Final

RECORD: Final = struct.Struct("<qqq")  # when it began on the monotonic clock, rows, nanoseconds


def main() -> None:
    """Serve, with a clock around each batch."""
    from inferd._native.batch import Batch
    from inferd.cli import main as inferd
    from inferd.instance import Instance

    out = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    run = Instance.run

    def timed(self: Instance, batch: Batch) -> None:
        started_ns = time.monotonic_ns()
        run(self, batch)
        os.write(out, RECORD.pack(started_ns, batch.rows, time.monotonic_ns() - started_ns))

    Instance.run = timed  # type: ignore[method-assign]
    inferd()


def batches(path: Path, after: int) -> list[tuple[int, int, int]]:
    """Of the file, the batches after so many."""
    return list(RECORD.iter_unpack(path.read_bytes()[after * RECORD.size :]))


if __name__ == "__main__":
    main()
