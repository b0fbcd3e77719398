"""The load generator beside h2load: the same bytes to the same server, turn by turn."""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from inferd._native.tally import Slice
from inferd.bench.generator import MODEL_INFER, Generator, Traffic
from inferd.bench.result import Load

from .calls import rows, slow
from .process import Server, free_ports

pytestmark = pytest.mark.skipif(
    not (shutil.which("h2load") and shutil.which("nghttpd")),
    reason="h2load and nghttpd are not installed (Debian: nghttp2-client, nghttp2-server)",
)

LOAD = Load(connections=8, streams=16)


def h2load(address: str, message: bytes, requests: int, folder: Path) -> float:
    """Requests per second as h2load counts them."""
    body = folder / "request"
    body.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    command = [
        "h2load", f"--requests={requests}", f"--clients={LOAD.connections}", f"--max-concurrent-streams={LOAD.streams}",
        "--threads=1", f"--data={body}", "--header=content-type: application/grpc", "--header=te: trailers",
        f"http://{address}{MODEL_INFER}",
    ]  # fmt: skip
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert f"{requests} succeeded, 0 failed" in output, output
    found = re.search(r", ([0-9.]+) req/s", output)
    assert found, output
    return float(found[1])


def ours(address: str, message: bytes, requests: int, *, grpc: bool) -> float:
    """Requests per second as we count them."""
    with Generator(Traffic(address, (message,), grpc=grpc), LOAD, limit=requests) as generator:
        total: Slice | None = None
        for one in generator.slices():
            if total is None:
                total = one
            else:
                total.merge(one)
    assert total is not None
    assert (total.ok, total.failures) == (requests, {})
    return requests / (total.end_ns - total.start_ns) * 1e9


@contextmanager
def nghttpd(folder: Path) -> Iterator[str]:
    """The address of nghttp2's own server, with a file where ModelInfer would be."""
    page = folder / MODEL_INFER[1:]
    page.parent.mkdir()
    page.write_bytes(bytes(60))
    (port,) = free_ports(1)
    with subprocess.Popen(["nghttpd", "--no-tls", "--address=127.0.0.1", f"--htdocs={folder}", str(port)]) as server:
        try:
            end = time.monotonic() + 10
            while True:
                try:
                    ours(f"127.0.0.1:{port}", b"", 1, grpc=False)
                    break
                except OSError:
                    assert time.monotonic() < end
                    time.sleep(0.01)
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate()


def settled(low: float, high: float, ratio: Callable[[], float]) -> list[float]:
    """Ratios of interleaved runs, as many as a noisy machine needs for their median to lie between the two, or 25."""
    ratios: list[float] = []
    while len(ratios) < 5 or (len(ratios) < 25 and not low < statistics.median(ratios) < high):
        ratios.append(ratio())
    return ratios


def test_both_find_the_same_throughput_in_an_inference_server(zoo: Server, tmp_path: Path) -> None:
    # The model is what takes time, so neither client competes with the server for a processor.
    message = slow(rows(seed=0), duration_ms=1.0).SerializeToString()
    ratios = settled(
        0.9,
        1.1,
        lambda: ours(zoo.address, message, 1000, grpc=True) / h2load(zoo.address, message, 1000, tmp_path),
    )
    assert 0.9 < statistics.median(ratios) < 1.1, ratios


def test_the_generator_offers_what_h2load_offers_from_one_thread(tmp_path: Path) -> None:
    message = bytes(84)
    with nghttpd(tmp_path) as address:
        ratios = settled(
            0.9,
            float("inf"),
            lambda: ours(address, message, 50_000, grpc=False) / h2load(address, message, 50_000, tmp_path),
        )
    assert statistics.median(ratios) > 0.9, ratios
