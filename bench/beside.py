"""Servers of one model in several kinds, which take turns under the same load: what each costs beside the plain one."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import grpc
from rich import box
from rich.table import Table

from bench.peers.inferd_server import Inferd
from bench.processes import Group, Start, free_port
from bench.turns import offer
from bench.works import Prepared
from inferd.bench.generator import Traffic
from inferd.errors import StartError

MODELS: Final = Path(__file__).resolve().parents[1] / "build" / "bench" / "models"
PLAIN: Final = "plain"
START_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Kind:
    """How a server is started, and what its clients say."""

    flags: tuple[str, ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()


def measure(
    kinds: Mapping[str, Kind], work: Prepared, transport: str, rounds: int, seconds: float
) -> dict[str, list[float]]:
    """CPU time for each request in microseconds, by kind of server and round. Raises StartError."""
    found: dict[str, list[float]] = {name: [] for name in kinds}
    with ExitStack() as running:
        servers = []
        for name, kind in kinds.items():
            folder, port = Path(running.enter_context(tempfile.TemporaryDirectory())), free_port()
            start = Start((*Inferd(transport).start(work, folder, port).command, *kind.flags))
            group = running.enter_context(Group(start, folder / "log"))
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                try:
                    grpc.channel_ready_future(channel).result(START_TIMEOUT_S)
                except grpc.FutureTimeoutError:
                    raise StartError(f"the server does not listen: {group.ended() or group.said()}") from None
            group.pause()
            servers.append((name, group, Traffic(f"127.0.0.1:{port}", (work.request,), metadata=kind.metadata)))
        for number in range(rounds + 1):
            for name, group, traffic in servers:
                group.resume()
                offered = offer(traffic, work.work.loaded, group, seconds)
                group.pause()
                if number and offered.window.ok:  # the first round is a warm-up
                    found[name].append(offered.cpu_ns.total() / offered.window.ended / 1e3)
    if not all(len(took) == rounds for took in found.values()):
        raise StartError("a server answered nothing in one of its turns")
    return found


def ratios(found: Mapping[str, list[float]], name: str) -> list[float]:
    """What a kind costs in each round, of the plain one in the same."""
    return [one / other for one, other in zip(found[name], found[PLAIN], strict=True)]


def table(found: Mapping[str, list[float]]) -> Table:
    """One line for each kind, beside the plain server of the same round."""
    shown = Table(box=box.SIMPLE)
    for column in ("", "CPU us/request, median", "of plain, median (lowest..highest)"):
        shown.add_column(column, justify="left" if not column else "right")
    for name, took in found.items():
        beside = ratios(found, name)
        told = "" if name == PLAIN else f"{median(beside):.3f} ({min(beside):.3f}..{max(beside):.3f})"
        shown.add_row(name, f"{median(took):.2f}", told)
    return shown
