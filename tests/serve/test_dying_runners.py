"""A thread that runs a model dies in a server that goes on: it says so, and nobody waits for it for ever."""

from __future__ import annotations

import signal
from pathlib import Path

import grpc
import onnx_models as models
import pytest

from .backlog import occupy
from .calls import code_of, request, rows, slow
from .conftest import SLOW_ALONE, UNLEARNT
from .process import Server, eventually

DEADLINE_EXCEEDED, INTERNAL, OK = grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.INTERNAL, grpc.StatusCode.OK
INJECTED = Path(__file__).parent / "injected"


@pytest.fixture
def mortal(repository: Path, transport: str, tmp_path: Path) -> Server:
    """A server whose runners SIGUSR2 kills. It is stopped by the test: its log has a bug in it."""
    models.write(repository, "slow", models.slow(), config=SLOW_ALONE)
    flags = (*UNLEARNT, "--batching-inline-us=0", "--drain-grace-ms=300")
    env = {"PYTHONPATH": str(INJECTED), "KILLED_FILE": str(tmp_path / "killed")}
    return Server(repository, tmp_path, transport, flags, env)


@pytest.mark.parametrize("is_running", [False, True], ids=["idle", "in a run"])
def test_a_runner_that_dies_fails_liveness_and_every_caller_has_an_end(
    mortal: Server, is_running: bool, tmp_path: Path
) -> None:
    try:
        mortal.wait_until_ready()
        with mortal.stub() as stub:
            assert code_of(stub.ModelInfer.future(slow(rows(1), 0), timeout=30)) is OK
            assert mortal.health("liveness") == "SERVING"
            calls = [occupy(mortal, stub, duration_ms=1000, timeout=30)] if is_running else []
            mortal.process.send_signal(signal.SIGUSR2)
            eventually((tmp_path / "killed").exists)
            # Whoever it was about to serve, and whoever comes later, has an end by his own deadline.
            calls += [stub.ModelInfer.future(slow(rows(seed), 0), timeout=2) for seed in range(4)]
            eventually(lambda: mortal.health("liveness") == "NOT_SERVING")
            assert mortal.http("/health")[0] == 503
            codes = [code_of(one) for one in calls]
            assert codes[-4:] == [DEADLINE_EXCEEDED] * 4
            assert not is_running or codes[0] in (OK, INTERNAL)
            assert (
                code_of(stub.ModelInfer.future(request("nobody", x=rows(1)), timeout=30)) is grpc.StatusCode.NOT_FOUND
            )
        [death] = [one for one in mortal.log() if "a runner died" in one["message"]]
        assert death["level"] == "error"
        assert "Killed" in death["exception"]
        mortal.terminate()
        assert mortal.wait() == 0
    finally:
        mortal.process.kill()
        mortal.process.wait()
