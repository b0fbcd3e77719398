"""The wall clock jumps by hours while the server works: nothing that it times is measured by it."""

from __future__ import annotations

import datetime
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import onnx_models as models
import pytest

from .backlog import occupy, queue_behind
from .calls import code_of, rows, slow
from .conftest import SLOW_ALONE, UNLEARNT
from .process import Server

OK, DEADLINE_EXCEEDED = grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED
SOURCE = Path(__file__).parent / "injected" / "clock.c"
HOUR_S = 3600


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """The file that says by how many seconds the server's wall clock is ahead."""
    file = tmp_path / "ahead"
    file.write_text("0")
    return file


@pytest.fixture
def server(repository: Path, transport: str, tmp_path: Path, clock: Path) -> Iterator[Server]:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    built = tmp_path / "clock.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", built, SOURCE, "-ldl"], check=True)
    models.write(repository, "slow", models.slow(), config=SLOW_ALONE)
    env = {"LD_PRELOAD": str(built), "CLOCK_FILE": str(clock)}
    flags = (*UNLEARNT, "--grpc-keepalive-time-ms=60000", "--inference-hang-ms=60000", "--inference-timeout-ms=60000")
    one = Server(repository, tmp_path, transport, flags, env)
    with one.while_ready():
        yield one


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S], ids=["an hour on", "an hour back"])
def test_deadlines_queues_and_health_do_not_notice_that_the_wall_clock_jumps(
    server: Server, clock: Path, jump_s: int
) -> None:
    with server.stub() as stub:
        # One that runs and two that wait, of which one has a deadline; with the server's own none of them is late.
        busy = occupy(server, stub, duration_ms=1000)
        waiting = queue_behind(server, stub, 1)
        waiting.append(stub.ModelInfer.future(slow(rows(2), 0), timeout=50))
        clock.write_text(str(jump_s))
        assert [code_of(one) for one in (busy, *waiting)] == [OK] * 3
        assert server.health() == server.health("liveness") == "SERVING"
        # A deadline that begins after the jump is no longer and no shorter: the run would take ten minutes.
        late = slow(rows(3), 10 * 60 * 1000)
        late.parameters["timeout"].int64_param = 300_000
        assert code_of(stub.ModelInfer.future(late, timeout=60)) is DEADLINE_EXCEEDED
        assert code_of(stub.ModelInfer.future(slow(rows(4), 0), timeout=50)) is OK
    server.terminate()
    assert server.wait() == 0
    # That it did jump is to be seen in the log.
    first, last = (datetime.datetime.fromisoformat(server.log()[at]["ts"]) for at in (0, -1))
    assert abs((last - first).total_seconds() - jump_s) < 600
