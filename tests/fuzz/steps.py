"""What an input of the receive and client targets stands for: steps, each with some bytes.

A step is a head byte, a length of two bytes and so many bytes, or as many as are left. Any input is some steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum


class Kind(IntEnum):
    """What happens in a step."""

    RECEIVE = 0  # these bytes come, through the connection's own buffer
    RECEIVE_COPY = 1  # and this way on loops that have none for it
    TAKE = 2  # a batch begins to run
    SETTLE = 3  # all that run come to an end; bits of the bytes say which of them fail
    STALL = 4  # the client reads no more
    READ = 5  # and again
    LATER = 6  # time goes on by 2**byte ns
    HOUSEKEEPING = 7  # what is due about once a second
    EOF = 8
    LOST = 9
    GO_AWAY = 10
    NO_MORE = 11
    CUT = 12
    CLOSE = 13
    ABORT = 14
    TURN = 15  # the other model: one comes, goes or changes


@dataclass(frozen=True)
class Step:
    """One step."""

    kind: Kind
    data: bytes = b""
    slot: int = 0
    """Which of two connections it is about."""
    at_once: bool = False
    """The loop does not turn before the next one."""


def steps_of(data: bytes) -> Iterator[Step]:
    """The steps that an input stands for."""
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at + 1 : at + 3], "big")
        yield Step(Kind(data[at] & 15), data[at + 3 : at + 3 + size], data[at] >> 7, bool(data[at] & 64))
        at += 3 + size


def input_of(steps: Iterable[Step]) -> bytes:
    """The input that stands for the steps."""
    return b"".join(
        bytes([step.kind | step.slot << 7 | step.at_once << 6]) + len(step.data).to_bytes(2, "big") + step.data
        for step in steps
    )
