"""A server as a group of processes: started, paused and continued as one, and what it has used so far."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Self

import psutil

STOP_TIMEOUT_S = 20.0
REASON_LENGTH = 160


@dataclass(frozen=True, slots=True)
class Start:
    """How to start a server: its command, what it needs in its environment beside ours, and where."""

    command: tuple[str | Path, ...]
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    folder: Path | None = None
    pausable: bool = True


class Group:
    """A process and all its children, in a session of their own. Use as a context manager: it ends with the block."""

    def __init__(self, start: Start, log: Path, *, talks: bool = False) -> None:
        """Start it, with its output in `log`; if it `talks`, its standard input and output are pipes."""
        self._log, self._pausable = log, start.pausable
        # Settings of inferd that stand in our environment are not what a reader of the figures expects.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("INFERD_")}
        with log.open("wb") as output:
            self.process: subprocess.Popen[str] = subprocess.Popen(
                [str(word) for word in start.command],
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else output,
                stderr=output,
                env=inherited | dict(start.environment),
                cwd=start.folder,
                text=True,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # A paused process would not see SIGTERM.
        self.resume()
        self._send(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_TIMEOUT_S)
        # A child may outlive its parent.
        self._send(signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def pause(self) -> None:
        """Let it cost nothing until `resume`, if it can be paused."""
        if self._pausable:
            self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def ended(self, within_s: float = 0.0) -> str | None:
        """If the process has ended, or does so within this time: one line that says how."""
        try:
            code = self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            return None
        return f"ended with exit code {code}: {self.said()}"

    def said(self) -> str:
        """The last line of its log."""
        return last_line(self._log.read_text(errors="replace"))

    def members(self) -> list[psutil.Process]:
        """Its processes now."""
        with suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.process.pid)
            return [first, *first.children(recursive=True)]
        return []

    def rss_bytes(self) -> int:
        """Resident memory of all its processes; what they share counts in each."""
        total = 0
        for one in self.members():
            with suppress(psutil.NoSuchProcess):
                total += one.memory_info().rss
        return total


class Meter:
    """CPU time of the processes that a group has now, by the names of their programs."""

    def __init__(self, group: Group) -> None:
        self._clocks = [(one.name(), _cpu_clock(one.pid)) for one in group.members()]

    def read_ns(self) -> Counter[str]:
        """User and system time since the processes began; children that have ended since are not in it."""
        used: Counter[str] = Counter()
        for name, clock in self._clocks:
            with suppress(OSError):
                used[name] += time.clock_gettime_ns(clock)
        return used


def _cpu_clock(pid: int) -> int:
    # What clock_getcpuclockid(3) gives on Linux; counts nanoseconds where /proc counts hundredths of a second.
    return ~pid << 3 | 2


def free_port() -> int:
    """A port of the loopback address that nobody listens on now. Raises OSError if none is found."""
    # Linux gives outgoing connections ports from 32768 on: one of those might be gone before the server has it.
    for port in random.sample(range(20_000, 30_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("found no free port")


def last_line(text: str) -> str:
    """The last line that says something, shortened: of a traceback or a compiler, mostly the reason."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:REASON_LENGTH] if lines else "it said nothing"
