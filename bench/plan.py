"""`python -m bench plan`: what the simulation of `inferd plan` says of one pod, beside what a real server does."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import onnx
import psutil
from onnx import TensorProto, helper, numpy_helper

from bench.plan_server import batches
from bench.processes import Group, Start, free_port
from inferd.bench.machine import this_machine
from inferd.config import load
from inferd.errors import StartError
from inferd.plan.measure import HOP_US, REQUEST_US, measured, told
from inferd.plan.pod import Pod, Timings
from inferd.plan.simulation import Load, Outcome, simulate

WIDTH: Final = 1536
LAYERS: Final = 12
FEW: Final = 5  # runs of a size that say nothing
USED: Final = (0.1, 0.3, 0.5, 0.7, 0.85)
START_TRIES: Final = 300
WARMUP_S: Final = 2.0
# Neighbours come and go: so often each rate is tried, and the time is kept in which they had least of the machine.
TRIES: Final = 2
QUIET_CPUS: Final = 0.2
# Runs are drawn so many at a time, as they followed each other: what neighbours do to one they do to the next.
STRETCH: Final = 64
SEEDS: Final = 9


@click.command()
@click.option("--seconds", type=click.FloatRange(min=1), default=12.0, show_default=True, help="For each try.")
@click.option("--json", "out_json", type=click.Path(dir_okay=False, path_type=Path), help="Write what was found there.")
def plan(seconds: float, out_json: Path | None) -> None:
    """One server on one CPU at rising rates: its figures beside the simulated ones."""
    with tempfile.TemporaryDirectory() as folder:
        found = compare(Path(folder), seconds)
    if out_json is not None:
        out_json.write_text(json.dumps(found, indent=2) + "\n")


def compare(folder: Path, seconds: float) -> dict[str, Any]:
    """Measure the model, serve it, and print a line for each rate."""
    repository = folder / "models"
    write(repository / "layers" / "1" / "model.onnx")
    flags = {
        "threads.cpus": "1",
        "batching.max_batch_size": "8",
        "grpc.port": str(free_port()),
        "http.port": "0",
        "metrics.port": "0",
    }
    settings = load(flags, models_path=str(repository)).settings
    address = f"127.0.0.1:{settings.grpc.port}"
    record = folder / "batches"
    command = (sys.executable, "-m", "bench.plan_server", record, "serve", repository, "--host=127.0.0.1")
    arguments = [f"--{name.replace('.', '-').replace('_', '-')}={value}" for name, value in flags.items()]
    rows: list[dict[str, Any]] = []
    pod = measured(repository, None, settings, REQUEST_US, HOP_US)
    limit = min(pod.pod.limits(1).values())
    print(f"{pod.name}: {told(pod)}")
    with Group(Start((*command, *arguments)), folder / "log") as server:
        wait(address, server)
        print(f"{'':>14} {'p50 ms':>26} {'p99 ms':>26}")
        print(f"{'used':>5} {'rate/s':>8}" + f" {'real':>8} {'same runs':>9} {'plan':>7}" * 2 + "   batch  others")
        for used in USED:
            rate = round(used * limit)
            found = quietest(server, record, address, rate, seconds)
            # With the runs that the server had meanwhile: neighbours make those of the load a poor guess.
            served = in_service([(rows, run_ns) for _, rows, run_ns in found.batches])
            simulated = usual(replace(pod.pod, timings=served), rate, seconds)
            at_load = usual(pod.pod, rate, seconds)
            row = {
                "used": used,
                "rate": rate,
                "answered": found.real["throughput"],
                "others_cpus": found.others_cpus,
                "p50_ms": found.real["p50_ms"],
                "simulated_p50_ms": simulated.p50_ns / 1e6,
                "p99_ms": found.real["p99_ms"],
                "simulated_p99_ms": simulated.p99_ns / 1e6,
                "batch": sum(rows for _, rows, _ in found.batches) / len(found.batches),
                "simulated_batch": simulated.batch_requests,
                "run_ms": {str(rows): run_ns / 1e6 for rows, run_ns in served.run_ns.items()},
                "simulated_at_load_p50_ms": at_load.p50_ns / 1e6,
                "simulated_at_load_p99_ms": at_load.p99_ns / 1e6,
            }
            rows.append(row)
            kinds = ("", "simulated_", "simulated_at_load_")
            p50, p99 = ([row[f"{kind}{part}_ms"] for kind in kinds] for part in ("p50", "p99"))
            figures = "".join(f" {real:>8.1f} {same:>9.1f} {before:>7.1f}" for real, same, before in (p50, p99))
            print(f"{used:>5.0%} {rate:>8}{figures}   {row['batch']:>5.1f} {row['others_cpus']:>7.2f}")
    return {"machine": dict(this_machine()), "pod": dict(told(pod)), "limit": limit, "rates": rows}


def usual(pod: Pod, rate: int, seconds: float) -> Outcome:
    """As long as the real one, the one in the middle by p99 of some: in seconds chance decides about the hundredth."""
    requests = max(round(rate * (seconds + WARMUP_S)), 2000)
    outcomes = [simulate(pod, Load(rate, 1, requests=requests, seed=seed)) for seed in range(SEEDS)]
    return sorted(outcomes, key=lambda one: one.p99_ns)[SEEDS // 2]


@dataclass(frozen=True, slots=True)
class Window:
    """What a client saw of some seconds, what the server ran, and how many CPUs everybody else had."""

    real: Mapping[str, float]
    batches: list[tuple[int, int, int]]
    others_cpus: float


def quietest(server: Group, record: Path, address: str, rate: int, seconds: float) -> Window:
    """The quietest of some tries."""
    tried: list[Window] = []
    while len(tried) < TRIES and not (tried and tried[-1].others_cpus < QUIET_CPUS):
        before, clock = len(batches(record, 0)), Clock(server)
        real = asked(address, rate, seconds)
        tried.append(Window(real, batches(record, before), clock.others_cpus()))
    return min(tried, key=lambda one: one.others_cpus)


class Clock:
    """From when it is made: the CPUs that neither the server nor our own children had."""

    def __init__(self, server: Group) -> None:
        self._server = server
        self._started_s, self._before_s = time.monotonic(), self._others_s()

    def _others_s(self) -> float:
        """Processor seconds of the machine, less the server's and those of our children that have ended."""
        machine, ours = psutil.cpu_times(), psutil.Process().cpu_times()
        served = sum(sum(one.cpu_times()[:2]) for one in self._server.members())
        return float(sum(machine) - machine.idle - machine.iowait - served - ours.children_user - ours.children_system)

    def others_cpus(self) -> float:
        """On average."""
        return max((self._others_s() - self._before_s) / (time.monotonic() - self._started_s), 0.0)


def asked(address: str, rate: int, seconds: float) -> dict[str, float]:
    """What `inferd bench` says of a server at a rate."""
    done = subprocess.run(
        [
            sys.executable, "-m", "inferd", "bench", address, "layers", f"--rate={rate}",
            f"--duration={seconds}", f"--warmup={WARMUP_S:g}", "--max-in-flight=4000", "--json=-",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise StartError(f"inferd bench: {done.stderr[-400:]}")
    [point] = json.loads(done.stdout)["points"]
    latency = point["latency"]
    return {
        "throughput": point["requests_per_second"],
        "p50_ms": latency["p50_ns"] / 1e6,
        "p99_ms": latency["p99_ns"] / 1e6,
    }


def in_service(ran: list[tuple[int, int]]) -> Timings:
    """Of runs as they followed each other, (rows, ns): the mean of each size, and each run as a multiple of it.

    A larger batch is taken to be no shorter; sizes that ran a few times only are left out.
    """
    by_rows: dict[int, list[int]] = {}
    for rows, run_ns in ran:
        by_rows.setdefault(rows, []).append(run_ns)
    found: dict[int, float] = {}
    longest = 0.0
    for rows, times in sorted(by_rows.items()):
        if len(times) >= FEW:
            longest = found[rows] = max(longest, sum(times) / len(times))
    return Timings(found, tuple(run_ns / found[rows] for rows, run_ns in ran if rows in found), STRETCH)


def wait(address: str, server: Group) -> None:
    """Until the server is ready. Raises StartError if it does not become so."""
    for _ in range(START_TRIES):
        health = [sys.executable, "-m", "inferd", "health", f"--address={address}"]
        if subprocess.run(health, capture_output=True, check=False).returncode == 0:
            return
        if server.process.poll() is not None:
            break
    raise StartError("the server did not become ready")


def write(path: Path) -> None:
    """A network of some matrix products, each of which needs all of its weights for one row as for many."""
    random = np.random.default_rng(0)
    weights = {f"w{n}": random.standard_normal((WIDTH, WIDTH), np.float32) / WIDTH**0.5 for n in range(LAYERS)}
    nodes = []
    for n in range(LAYERS):
        nodes.append(helper.make_node("MatMul", ["x" if n == 0 else f"y{n - 1}", f"w{n}"], [f"m{n}"]))
        nodes.append(helper.make_node("Tanh", [f"m{n}"], [f"y{n}"]))
    graph = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", WIDTH])],
        [helper.make_tensor_value_info(f"y{LAYERS - 1}", TensorProto.FLOAT, ["rows", WIDTH])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    path.parent.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
