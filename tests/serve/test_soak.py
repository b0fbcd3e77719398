"""`make soak`: minutes of every kind of client and of random faults, after which the server is as on its first day."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_models as models
import psutil
import pytest

from .calls import arrays, request, rows
from .process import Server, eventually
from .scrape import counted, wait_for
from .test_chaos import MODELS, Crowd, balanced, resident_bytes

SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
SEED = int(os.environ.get("SOAK_SEED", "0")) or random.randrange(1 << 32)
ROUND = 1500
"""Requests between two looks at the server."""
WARM_UP = 0.2
"""The part of the time in which the server may learn how much memory it needs."""
GROWTH_BYTES = 12 << 20
LOST_BYTES = {"native": 0, "grpcio": 20}
"""What gRPC's own server keeps for ever of each call that a client gave up, spread over all calls of the crowd.

It does so without inferd too, 35 to 105 bytes for each of 120,000 cancelled calls. Python's own blocks stay as many.
"""


class Faults:
    """What goes wrong around one server, one thing after the other, until it is told to stop."""

    def __init__(self, server: Server, seed: int) -> None:
        self._server, self._random, self._over = server, random.Random(seed), threading.Event()
        self._process = psutil.Process(server.process.pid)
        self.done: list[str] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Faults:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        kinds: list[Callable[[], None]] = [self.no_files, self.crowd, self.half_open, self.frozen, self.killed_calls]
        while not self._over.wait(self._random.random()):
            kind = self._random.choice(kinds)
            kind()
            self.done.append(kind.__name__)

    def no_files(self) -> None:
        """No more files than it has, for a moment."""
        pid = self._process.pid
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (self._process.num_fds() + 1, limits[1]))
        self._over.wait(0.3)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)

    def crowd(self) -> None:
        """Clients that connect and say nothing."""
        self._connect(self._random.randint(1, 100), b"")

    def half_open(self) -> None:
        """Clients that begin a preface and go."""
        self._connect(20, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[: self._random.randint(1, 24)])

    def frozen(self) -> None:
        """No time at all, as on a machine that is too busy."""
        self._process.send_signal(signal.SIGSTOP)
        time.sleep(0.2)
        self._process.send_signal(signal.SIGCONT)

    def killed_calls(self) -> None:
        """A client with calls under way that goes without a word."""
        with self._server.stub() as stub:
            calls = [stub.ModelInfer.future(request("scale", x=rows(seed))) for seed in range(50)]
        del calls

    def _connect(self, count: int, said: bytes) -> None:
        opened = []
        try:
            for _ in range(count):
                one = socket.create_connection(("127.0.0.1", self._server.grpc_port), timeout=10)
                opened.append(one)
                one.sendall(said)
            self._over.wait(0.3)
        except OSError:
            pass  # refused or reset, which is its right
        finally:
            for one in opened:
                one.close()


@pytest.mark.long
@pytest.mark.timeout(SECONDS + 300)
def test_after_minutes_of_random_faults_it_answers_right_its_books_balance_and_it_has_not_grown(
    repository: Path, server: Callable[..., Server], capsys: pytest.CaptureFixture[str]
) -> None:
    models.write(repository, "scale", models.scale())
    models.write(repository, "embedding", models.embedding())
    models.write(repository, "slow", models.slow())
    one = server(repository)
    began_s, before_bytes, rounds = time.monotonic(), 0.0, 0
    with capsys.disabled():
        print(f"\nsoak: {SECONDS:.0f} s on {one.transport}, SOAK_SEED={SEED}")
    with Faults(one, SEED) as faults:
        while (spent_s := time.monotonic() - began_s) < SECONDS:
            crowd = Crowd(one.address, random=random.Random(SEED + rounds), left=ROUND)
            asyncio.run(crowd.run())
            assert crowd.wrong == []
            assert one.process.poll() is None
            rounds += 1
            if not before_bytes and spent_s > SECONDS * WARM_UP:
                before_bytes = resident_bytes(one)

    eventually(lambda: one.health("liveness") == "SERVING")
    assert one.health() == "SERVING"
    with one.stub() as stub:
        for seed in range(8):
            y = arrays(stub.ModelInfer(request("scale", x=rows(seed)), timeout=30))["y"]
            assert np.array_equal(y, rows(seed) * np.float32(2))
    # Accepted is answered, failed or cancelled, and nothing is under way.
    for model in MODELS:
        wait_for(one, model, balanced, 30.0)
        codes = counted(one, model).codes
        assert not {"INTERNAL", "UNKNOWN"} & set(codes), (model, codes)
    grown = resident_bytes(one) - before_bytes
    with capsys.disabled():
        print(f"soak: {rounds * ROUND} requests, {len(faults.done)} faults, grown by {grown / 1e6:.1f} MB")
    assert grown < GROWTH_BYTES + rounds * ROUND * LOST_BYTES[one.transport]
