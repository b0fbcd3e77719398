"""Priorities and queue policies: one model whose levels each have a policy of their own, and one instance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from serve.calls import rows, slow

from ..answers import Answer, Call
from .case import Case, Difference, changed, parameter
from .parameters import on_request

FEW, IMPATIENT, PATIENT = 1, 2, 3
POLICIES = """
dynamic_batching {
  priority_levels: 3 default_priority_level: 3
  priority_queue_policy [
    { key: 1 value { max_queue_size: 1 } },
    { key: 2 value { timeout_action: REJECT default_timeout_microseconds: 1000 allow_timeout_override: true } },
    { key: 3 value { timeout_action: DELAY default_timeout_microseconds: 1000 } }
  ]
}
"""
# Long beside a timeout of a millisecond, and beside the time in which a handful of requests come.
RUN_MS = 250


def several(count: int, level: int) -> tuple[Call, ...]:
    """So many requests of one level. One of them runs at a time, the others wait."""
    return tuple(Call("ModelInfer", of_level(level)) for _ in range(count))


def of_level(level: int) -> Any:
    message = slow(rows(1), RUN_MS, model="levels")
    return changed(message, lambda one: parameter(one, "priority", "uint64_param", level))


def kinds(answers: Sequence[Answer]) -> str:
    """The codes that there are: how many of each is a matter of time."""
    return ", ".join(sorted({one.code for one in answers}))


FULL = Difference(
    what="more requests at once than max_queue_size lets wait",
    triton="OK, UNAVAILABLE",
    inferd="OK, RESOURCE_EXHAUSTED",
    why="Proxies take UNAVAILABLE for a server that is gone. RESOURCE_EXHAUSTED says to come back more slowly, and "
    "comes with `grpc-retry-pushback-ms`.",
    seen=kinds,
)
LATE = Difference(
    what="requests that wait for longer than their queue policy has it, with REJECT",
    triton="OK, UNAVAILABLE",
    inferd="DEADLINE_EXCEEDED, OK",
    why="Their time is over; the server is here.",
    seen=kinds,
)
DEADLINE = Difference(
    what="the parameter `timeout` with 1 microsecond, for a model without a queue policy",
    triton="OK",
    inferd="DEADLINE_EXCEEDED",
    why="Triton heeds it only where a policy lets it shorten a timeout. It is meant as a deadline, and here it is one.",
)

CASES = (
    Case("a full queue", several(6, FEW), FULL, at_once=True),
    Case("requests that are refused once they waited too long", several(3, IMPATIENT), LATE, at_once=True),
    Case("requests that are put back once they waited too long", several(3, PATIENT), at_once=True),
    Case("a level that there is not", several(1, 9)),
    Case("the default level", several(1, 0)),
    Case("a timeout that passes", (Call("ModelInfer", on_request("timeout", "int64_param", 1)),), DEADLINE),
)
