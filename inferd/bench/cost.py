"""What the server's processes on this machine use: CPU time and memory, seen from outside."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from inferd.bench.result import ServerCost
from inferd.errors import StartError

if TYPE_CHECKING:
    import psutil

# It listens for servers in containers and does none of their work.
_STAND_INS: Final = {"docker-proxy", "rootlessport"}


@dataclass(frozen=True, slots=True)
class Used:
    """A reading: CPU seconds since the processes started, and resident bytes now."""

    cpu_seconds: float
    rss_bytes: int


class Processes:
    """The processes that listen on a server's port, and all their children."""

    def __init__(self, found: Iterable[psutil.Process]) -> None:
        self._found = list(found)
        # A process that ends keeps its last reading, so that sums never go back.
        self._cpu_seconds = [0.0] * len(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def read(self) -> Used:
        """What they have used so far."""
        import psutil

        rss_bytes = 0
        for index, process in enumerate(self._found):
            with suppress(psutil.Error), process.oneshot():
                times = process.cpu_times()
                self._cpu_seconds[index] = times.user + times.system
                rss_bytes += process.memory_info().rss
        return Used(sum(self._cpu_seconds), rss_bytes)

    def between(self, start: Used, end: Used, requests: int) -> ServerCost:
        """The cost of so many requests, answered well or badly."""
        cpu_seconds = end.cpu_seconds - start.cpu_seconds
        return ServerCost(
            processes=len(self),
            cpu_seconds=cpu_seconds,
            cpu_us_per_request=cpu_seconds * 1e6 / requests if requests else None,
            rss_start=start.rss_bytes,
            rss_end=end.rss_bytes,
        )


def is_local(address: str) -> bool:
    """Whether an address, as grpc takes it, leads to this machine."""
    return address.startswith("unix:") or any(_is_ours(*one) for one in _resolved(address))


def _is_ours(family: socket.AddressFamily, host: str) -> bool:
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


def _resolved(address: str) -> list[tuple[socket.AddressFamily, str]]:
    host, _, _ = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_DGRAM)
    except OSError:
        return []
    return [(family, str(sockaddr[0])) for family, _, _, _, sockaddr in found]


def named(pids: Sequence[int]) -> Processes:
    """These processes and their children. Raises StartError if one is not there, or if psutil is not."""
    try:
        import psutil
    except ImportError as err:
        raise StartError("--server-pid needs psutil: pip install 'inferd[bench]'") from err
    try:
        return Processes(_families(psutil.Process(pid) for pid in pids))
    except psutil.Error as err:
        raise StartError(f"--server-pid: {err}") from err


def listening(address: str) -> Processes | str:
    """The processes behind a local address, or one line that says why they cannot be found."""
    try:
        import psutil
    except ImportError:
        return "without psutil there are no figures of the server's CPU and memory: pip install 'inferd[bench]'"
    pids = _unix_listeners(address) if address.startswith("unix:") else _tcp_listeners(address)
    found: list[psutil.Process] = []
    for pid in sorted(pids):
        with suppress(psutil.Error):
            found.append(psutil.Process(pid))
    if not found:
        return f"no process was found listening on {address}; name it with --server-pid, or ask as its user"
    with suppress(psutil.Error):
        if any(one.name() in _STAND_INS for one in found):
            return f"{address} belongs to a container; name the server's process with --server-pid"
    return Processes(_families(found))


def _tcp_listeners(address: str) -> set[int]:
    import psutil

    port = int(address.rpartition(":")[2])
    hosts = {host for _, host in _resolved(address)} | {"0.0.0.0", "::"}
    # The kernel shows an IPv4 address of an IPv6 socket like this.
    places = {(host, port) for host in hosts} | {(f"::ffff:{host}", port) for host in hosts}
    listeners = [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    return {one.pid for one in listeners if one.pid and tuple(one.laddr) in places}


def _unix_listeners(address: str) -> set[int]:
    import psutil

    path = address.removeprefix("unix:").removeprefix("//")
    return {one.pid for one in psutil.net_connections("unix") if one.pid and str(one.laddr) == path}


def _families(parents: Iterable[psutil.Process]) -> list[psutil.Process]:
    import psutil

    found: dict[int, psutil.Process] = {}
    for parent in parents:
        found[parent.pid] = parent
        with suppress(psutil.Error):
            found.update((child.pid, child) for child in parent.children(recursive=True))
    return list(found.values())
