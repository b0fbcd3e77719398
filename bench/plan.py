"""`python -m bench plan`: what the simulation of `inferd plan` says of one pod, beside what a real server does."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click
import grpc
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench.processes import Group, Start, free_port
from inferd.bench.machine import this_machine
from inferd.config import load
from inferd.errors import StartError
from inferd.plan.measure import HOP_US, REQUEST_US, measured, told
from inferd.plan.pod import Timings
from inferd.plan.simulation import Load, simulate
from inferd.proto.inference_pb2 import ModelStatisticsRequest
from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

WIDTH: Final = 1536
LAYERS: Final = 12
REQUESTS: Final = 20_000
FEW: Final = 5  # runs of a size that say nothing
USED: Final = (0.1, 0.3, 0.5, 0.7, 0.85)
START_TRIES: Final = 300


@click.command()
@click.option("--seconds", type=click.FloatRange(min=1), default=8.0, show_default=True, help="For each rate.")
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
    command = (sys.executable, "-m", "inferd", "serve", repository, "--host=127.0.0.1")
    arguments = [f"--{name.replace('.', '-').replace('_', '-')}={value}" for name, value in flags.items()]
    rows: list[dict[str, Any]] = []
    pod = measured(repository, None, settings, REQUEST_US, HOP_US)
    limit = min(pod.pod.limits(1).values())
    print(f"{pod.name}: {told(pod)}")
    with Group(Start((*command, *arguments)), folder / "log") as server:
        wait(address, server)
        print(f"{'used':>5} {'rate/s':>8}   {'p50 ms':>8} {'simulated':>9}   {'p99 ms':>8} {'simulated':>9}   batch")
        for used in USED:
            rate = round(used * limit)
            before = runs(address)
            real = asked(address, rate, seconds)
            # With the run times that the server had meanwhile: neighbours make those of the load a poor guess.
            served = Timings(since(before, runs(address)))
            simulated = simulate(replace(pod.pod, timings=served), Load(rate, 1, requests=REQUESTS))
            at_load = simulate(pod.pod, Load(rate, 1, requests=REQUESTS))
            row = {
                "used": used,
                "rate": rate,
                "answered": real["throughput"],
                "p50_ms": real["p50_ms"],
                "simulated_p50_ms": simulated.p50_ns / 1e6,
                "p99_ms": real["p99_ms"],
                "simulated_p99_ms": simulated.p99_ns / 1e6,
                "simulated_batch": simulated.batch_requests,
                "run_ms": {str(rows): run_ns / 1e6 for rows, run_ns in served.run_ns.items()},
                "simulated_at_load_p50_ms": at_load.p50_ns / 1e6,
                "simulated_at_load_p99_ms": at_load.p99_ns / 1e6,
            }
            rows.append(row)
            print(
                f"{used:>5.0%} {rate:>8}   {row['p50_ms']:>8.2f} {row['simulated_p50_ms']:>9.2f}"
                f"   {row['p99_ms']:>8.2f} {row['simulated_p99_ms']:>9.2f}   {row['simulated_batch']:.1f}"
            )
    return {"machine": dict(this_machine()), "pod": dict(told(pod)), "limit": limit, "rates": rows}


def asked(address: str, rate: int, seconds: float) -> dict[str, float]:
    """What `inferd bench` says of a server at a rate."""
    done = subprocess.run(
        [
            sys.executable, "-m", "inferd", "bench", address, "layers", f"--rate={rate}",
            f"--duration={seconds}", "--warmup=2", "--max-in-flight=4000", "--json=-",
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


def runs(address: str) -> dict[int, tuple[int, int]]:
    """How many batches of each size the server has run, and for how many nanoseconds."""
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        answer = GRPCInferenceServiceStub(channel).ModelStatistics(ModelStatisticsRequest(name="layers"), timeout=10)
    return {
        one.batch_size: (
            one.compute_infer.count,
            one.compute_input.ns + one.compute_infer.ns + one.compute_output.ns,
        )
        for one in answer.model_stats[0].batch_stats
    }


def since(before: Mapping[int, tuple[int, int]], after: Mapping[int, tuple[int, int]]) -> dict[int, float]:
    """The mean run time of each size between the two; a larger batch is taken to be no shorter."""
    found: dict[int, float] = {}
    longest = 0.0
    for rows, (count, ns) in sorted(after.items()):
        then = before.get(rows, (0, 0))
        if count - then[0] >= FEW:
            longest = found[rows] = max(longest, (ns - then[1]) / (count - then[0]))
    return found


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
