"""A server in a cgroup with too little memory for what it is sent: it refuses, and the kernel has nobody to kill."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import onnx_models as models
import pytest

from .backlog import occupy
from .calls import code_of, rows, slow
from .conftest import SLOW_ALONE, UNLEARNT
from .process import Server, eventually
from .scrape import counted, samples

LIMIT_BYTES = 600 << 20
MESSAGES, MESSAGE_ROWS = 120, 1 << 18  # of 24 bytes: 750 MB in all
ONE_INSTANCE = f"max_batch_size: {MESSAGE_ROWS} instance_group {{ count: 1 }}"
LONG_MS = 10 * 60 * 1000


class Cgroup:
    """A group of processes with a limit, of version 1 or 2."""

    def __init__(self, root: Path, name: str) -> None:
        """Made below a mount. Raises OSError where that is not allowed."""
        self.folder, is_old = root / name, root.name == "memory"
        self._kills = "memory.oom_control" if is_old else "memory.events"
        self.folder.mkdir()
        try:
            (self.folder / ("memory.limit_in_bytes" if is_old else "memory.max")).write_text(str(LIMIT_BYTES))
            self.kills()
        except (OSError, TypeError):
            self.folder.rmdir()
            raise OSError("this cgroup has no limit to set") from None

    @property
    def entering(self) -> tuple[str, ...]:
        """A command that joins it and becomes the one whose words follow."""
        return ("sh", "-c", f'echo $$ > {self.folder}/cgroup.procs && exec "$0" "$@"')

    def kills(self) -> int:
        """How many of its processes the kernel has killed."""
        found = re.search(r"^oom_kill (\d+)$", (self.folder / self._kills).read_text(), re.MULTILINE)
        return int(found[1]) if found else 0


@pytest.fixture
def cgroup(tmp_path: Path, transport: str) -> Iterator[Cgroup]:
    made = None
    for root in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")):
        try:
            made = made or Cgroup(root, f"inferd-{transport}-{tmp_path.parent.name}-{tmp_path.name}")
        except OSError:
            continue
    if made is None or shutil.which("sh") is None:
        pytest.skip("needs to be allowed to make a memory cgroup")
    yield made
    made.folder.rmdir()


# gRPC's own server has read a message whole before anybody can refuse it, so it may be killed before it has refused.
@pytest.mark.parametrize("transport", ["native"], indirect=True)
@pytest.mark.timeout(120)
def test_large_requests_are_shed_before_the_kernel_kills(
    repository: Path, tmp_path: Path, transport: str, cgroup: Cgroup
) -> None:
    models.write(repository, "slow", models.slow(), config=SLOW_ALONE)
    models.write(repository, "large", models.slow(), config=ONE_INSTANCE)

    class Confined(Server):
        """A server in that group."""

        within = cgroup.entering

    unbounded = (
        "--admission-max-bytes=0",
        f"--batching-max-queue-bytes={1 << 40}",
        f"--batching-max-queue-rows={1 << 40}",
    )
    flags = (*UNLEARNT, *unbounded, "--admission-memory-share=0.5")
    one = Confined(repository, tmp_path, transport, flags, {})
    with one.while_ready(), one.stub() as stub:
        # One that runs for ever, so that whatever is taken behind it stays.
        busy = occupy(one, stub, "large", duration_ms=LONG_MS)
        message = slow(np.zeros((MESSAGE_ROWS, 4), "f4"), 0, "large")
        calls = [stub.ModelInfer.future(message, timeout=60) for _ in range(MESSAGES)]
        # Each is refused or waits: all that there is to be had would be more than the kernel lets it have.
        eventually(lambda: shed(one) + counted(one, "large").queue_rows // MESSAGE_ROWS == MESSAGES, 60)
        assert 0 < shed(one) < MESSAGES
        assert one.health() == one.health("liveness") == "SERVING"
        for call in (*calls, busy):
            call.cancel()
        codes = {call.code() for call in calls}
        assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED}
        # Once there is room again, it takes what it is sent.
        eventually(lambda: code_of(stub.ModelInfer.future(slow(rows(1), 0), timeout=10)) is grpc.StatusCode.OK)
        assert cgroup.kills() == 0


def shed(server: Server) -> int:
    """Requests that were refused because memory was short."""
    return int(
        sum(
            value
            for name, labels, value in samples(server)
            if name == "inferd_shed_requests_total" and labels["reason"] == "memory"
        )
    )
