"""Clients that connect at the same moment."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from native_server import ECHO, run, serving

AT_ONCE = 600


@pytest.mark.skipif(
    int(Path("/proc/sys/net/core/somaxconn").read_text()) < AT_ONCE, reason="the system lets fewer clients wait"
)
def test_hundreds_that_come_while_the_loop_is_busy_are_all_let_in() -> None:
    async def main() -> None:
        async with serving(ECHO) as (_, port):
            with ExitStack() as stack:
                for _ in range(AT_ONCE):
                    # Nothing is accepted meanwhile: this is the loop's thread. Without room the system lets one wait.
                    stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))

    run(main)
