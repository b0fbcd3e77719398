"""A shared memory object of its own for a test, as any client makes one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = Path("/dev/shm")


class Memory:
    """An object in /dev/shm, open, with a key that nobody else has."""

    def __init__(self, contents: bytes) -> None:
        self.key = f"/inferd-test-{secrets.token_hex(8)}"
        self.path = FOLDER / self.key[1:]
        self.path.write_bytes(contents)

    @property
    def contents(self) -> bytes:
        return self.path.read_bytes()

    def write(self, data: bytes, at: int = 0) -> None:
        with self.path.open("r+b") as file:
            file.seek(at)
            file.write(data)

    def shrink(self, nbytes: int) -> None:
        os.truncate(self.path, nbytes)


@contextmanager
def memory(contents: bytes) -> Iterator[Memory]:
    """The object for as long as the block lasts."""
    made = Memory(contents)
    try:
        yield made
    finally:
        made.path.unlink(missing_ok=True)
