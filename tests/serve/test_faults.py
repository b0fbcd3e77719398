"""What goes wrong around the server: no more files, many idle clients, a run that hangs, a disk that takes nothing."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import onnx_models as models
import psutil
import pytest

from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from .calls import code_of, request, rows, slow
from .conftest import SLOW_ALONE, UNLEARNT
from .process import Server, eventually

OK, DEADLINE_EXCEEDED = grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.fixture
def serving(repository: Path, server: Callable[..., Server]) -> Callable[..., Server]:
    models.write(repository, "scale", models.scale())
    models.write(repository, "slow", models.slow(), config=SLOW_ALONE)
    return lambda *flags: server(repository, *flags)


def answers(stub: GRPCInferenceServiceStub) -> bool:
    return code_of(stub.ModelInfer.future(request("scale", x=rows(1)), timeout=30)) is OK


@pytest.fixture
def connections() -> Iterator[Callable[[int, int], list[socket.socket]]]:
    """Opens connections that say nothing."""
    with ExitStack() as opened:

        def open_them(port: int, count: int) -> list[socket.socket]:
            return [
                opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30)) for _ in range(count)
            ]

        yield open_them


def test_without_files_it_serves_who_is_connected_and_accepts_again_when_there_are_some(
    serving: Callable[..., Server], connections: Callable[[int, int], list[socket.socket]]
) -> None:
    one = serving()
    process = psutil.Process(one.process.pid)
    with one.stub() as stub:
        assert answers(stub)
        limits = resource.prlimit(one.process.pid, resource.RLIMIT_NOFILE)
        room = process.num_fds() + 8
        resource.prlimit(one.process.pid, resource.RLIMIT_NOFILE, (room, limits[1]))
        crowd = connections(one.grpc_port, 64)  # the system takes them, until the server can
        eventually(lambda: process.num_fds() >= room - 1)
        for _ in range(20):
            assert answers(stub)
        for each in crowd:
            each.close()
        resource.prlimit(one.process.pid, resource.RLIMIT_NOFILE, limits)

        def lets_in() -> bool:
            with one.stub() as late:
                return code_of(late.ModelInfer.future(request("scale", x=rows(1)), timeout=5)) is OK

        eventually(lets_in)
        assert answers(stub)


@pytest.mark.parametrize("count", [500, pytest.param(5000, marks=pytest.mark.long)])
def test_idle_connections_cost_the_others_nothing_and_leave_nothing(
    serving: Callable[..., Server], connections: Callable[[int, int], list[socket.socket]], count: int
) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < 2 * count:
        pytest.skip(f"this machine lets a process have {hard} files")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 2 * count), hard))
    try:
        one = serving()
        process = psutil.Process(one.process.pid)
        with one.stub() as stub:
            assert answers(stub)
            files = process.num_fds()
            crowd = connections(one.grpc_port, count)
            eventually(lambda: process.num_fds() >= files + count * 9 // 10)
            for _ in range(20):
                assert answers(stub)
            assert one.health("liveness") == "SERVING"
            for each in crowd:
                each.close()
            eventually(lambda: process.num_fds() <= files + 5)
            assert answers(stub)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_run_that_hangs_fails_liveness_and_no_client_waits_for_it(serving: Callable[..., Server]) -> None:
    one = serving("--inference-hang-ms=300")
    with one.stub() as stub:
        began_s = time.monotonic()
        hung = stub.ModelInfer.future(slow(rows(1), 6000), timeout=1)
        eventually(lambda: one.health("liveness") == "NOT_SERVING")
        waiting = stub.ModelInfer.future(slow(rows(2), 0), timeout=0.3)
        assert one.http("/health")[0] == 503
        # Other models go on, and whoever waited has an end by its own deadline.
        assert answers(stub)
        assert [code_of(hung), code_of(waiting)] == [DEADLINE_EXCEEDED] * 2
        assert time.monotonic() - began_s < 30
        # What hung came back after all.
        eventually(lambda: one.health("liveness") == "SERVING")
        assert code_of(stub.ModelInfer.future(slow(rows(3), 0), timeout=30)) is OK


def test_it_writes_no_file_so_a_full_or_read_only_disk_is_nothing_to_it(serving: Callable[..., Server]) -> None:
    one = serving()
    with one.stub() as stub:
        assert answers(stub)
    written = []
    for file in Path(f"/proc/{one.process.pid}/fd").iterdir():
        try:
            told, flags = file.stat(), (file.parent.parent / "fdinfo" / file.name).read_text()
        except OSError:
            continue  # closed since
        mode = int(next(line for line in flags.splitlines() if line.startswith("flags:")).split()[1], 8)
        if stat.S_ISREG(told.st_mode) and mode & (os.O_WRONLY | os.O_RDWR) and file.name not in ("1", "2"):
            written.append(os.readlink(file))
    assert written == []


READ_ONLY = "mount -o remount,bind,ro / && ! touch /written 2>/dev/null"
FULL = 'mount -t tmpfs -o size=4k none "$TMPDIR" && ! dd if=/dev/zero of="$TMPDIR/all" 2>/dev/null'


@pytest.mark.parametrize("disk", [READ_ONLY, FULL], ids=["a read-only root", "a full disk for temporary files"])
def test_on_a_disk_that_takes_nothing_it_starts_answers_and_stops(
    repository: Path, tmp_path: Path, transport: str, disk: str
) -> None:
    env = {"TMPDIR": str(tmp_path / "temporary")}
    (tmp_path / "temporary").mkdir()
    models.write(repository, "scale", models.scale())
    # In mounts of its own, so that it is as it was for everybody else.
    within = ("unshare", "--mount", "sh", "-c", f'{disk} && exec "$0" "$@"')
    if (
        shutil.which("unshare") is None
        or subprocess.run([*within, "true"], env=os.environ | env, check=False).returncode
    ):
        pytest.skip("needs to be allowed to mount (unshare --mount)")

    class Confined(Server):
        """A server on that disk."""

    Confined.within = within
    one = Confined(repository, tmp_path, transport, UNLEARNT, env)
    with one.while_ready(), one.stub() as stub:
        assert answers(stub)
        assert one.health("liveness") == "SERVING"
        assert "inferd_requests_total" in one.metrics_text()


def test_it_uses_no_shared_memory_unless_it_is_asked_to(serving: Callable[..., Server]) -> None:
    one = serving()
    with one.stub() as stub:
        assert answers(stub)
    assert "/dev/shm" not in Path(f"/proc/{one.process.pid}/maps").read_text()


class Mute(Server):
    """A server whose output goes to a disk without room."""

    @property
    def stderr(self) -> str:
        return ""


def test_a_log_that_cannot_be_written_stops_nothing(repository: Path, tmp_path: Path, transport: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, which is a disk without room")
    models.write(repository, "scale", models.scale())
    (tmp_path / "stderr").symlink_to("/dev/full")
    one = Mute(repository, tmp_path, transport, ("--log-level=debug", *UNLEARNT), {})
    with one.while_ready(), one.stub() as stub:
        assert answers(stub)
