"""perf_analyzer, the load generator of Triton's users, against inferd: it runs, measures and meets no error.

How fast anything is is not asked here. A measurement ends with a number of requests, however long they take.
"""

from __future__ import annotations

import csv
import os
import re
import subprocess
from pathlib import Path

import pytest
from serve.process import Server
from serve.scrape import counted

from .installed import SITE, absent

REQUESTS = 100
LIMIT_S = 90.0

LOADS = {
    "a closed loop": ("scale", "--concurrency-range=4"),
    "requests of four rows": ("scale", "--concurrency-range=2", "-b", "4"),
    "Poisson arrivals": ("scale", "--request-rate-range=100", "--request-distribution=poisson"),
    "streams": ("scale", "--concurrency-range=4", "--async", "--streaming"),
    "Poisson arrivals on streams": (
        *("scale", "--request-rate-range=100", "--request-distribution=poisson"),
        *("--async", "--streaming"),
    ),
    "tensors in shared memory": (
        *("scale", "--concurrency-range=2", "--shared-memory=system"),
        "--output-shared-memory-size=64",
    ),
    "tensors of every type": ("types", "--concurrency-range=2"),
}


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_perf_analyzer_measures(server: Server, tmp_path: Path, load: tuple[str, ...]) -> None:
    model, *flags = load
    before = counted(server, model)
    report = tmp_path / "report.csv"
    said = run(server.address, model, f"--request-count={REQUESTS}", "-f", str(report), *flags)
    [row] = csv.DictReader(report.read_text().splitlines())
    assert float(row["Inferences/Second"]) > 0
    # The server's part, from ModelStatistics before and after; load comes before the first, so a few are missed.
    assert "Server Queue" in row
    assert int(re.findall(r"Successful request count: (\d+)", said)[0]) > REQUESTS // 2
    assert "Error" not in said
    codes = counted(server, model).since(before).codes
    assert set(codes) == {"OK"}
    assert codes["OK"] >= REQUESTS


def run(address: str, model: str, *flags: str) -> str:
    """What it says; it must end well."""
    program = SITE / "bin" / "perf_analyzer"
    if not program.exists():
        absent("perf_analyzer is not in build/tools/triton; `make tools` installs it")
    done = subprocess.run(
        [program, "-m", model, "-i", "grpc", "-u", address, *flags],
        env=os.environ | {"LD_LIBRARY_PATH": str(SITE / "nvidia" / "cuda_runtime" / "lib")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    if "libb64" in done.stdout:
        absent(f"perf_analyzer needs Debian's libb64-0d: {done.stdout}")
    assert done.returncode == 0, done.stdout
    return done.stdout
