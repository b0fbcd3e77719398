"""`python -m bench memory`: does a server hold more memory after a million requests than after ten thousand?"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypedDict, cast

import click
import numpy as np
import onnx
from rich import box
from rich.console import Console
from rich.table import Table

from bench.cancelling import cancel
from bench.memory_server import Sample
from bench.models import mlp
from inferd.bench.generator import Generator, Traffic
from inferd.bench.result import Load
from inferd.errors import Code, StartError
from inferd.proto.inference_pb2 import ModelInferRequest

ROOT = Path(__file__).resolve().parents[1]
GROWTH_BOUND = 1.02
# By now every thread, arena and cache that serving needs is there; what is added later is growth.
FIRST_SAMPLE = 10_000
START_TIMEOUT_S = 60.0
SAMPLE_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 40.0
POLL_S = 0.02
LOAD = Load(connections=4, streams=8)
FEATURES = 16
ERRORS_ENDS = frozenset({Code.OK, Code.INVALID_ARGUMENT, Code.NOT_FOUND})
CANCELLED_ENDS = frozenset({Code.OK, Code.CANCELLED})


class Mix(StrEnum):
    """What is sent: good requests; a bad one for every nine; good ones on ever new connections, or taken back."""

    PLAIN = "plain"
    ERRORS = "errors"
    CONNECTIONS = "connections"
    CANCELLED = "cancelled"


class Taken(TypedDict):
    """What the server held after so many requests."""

    requests: int
    memory: Sample


class Growth(TypedDict):
    """What became of the server's memory. Sizes in bytes; the last two count from the first sample on."""

    requests: int
    transport: str
    mix: str
    rss_first: int
    rss_last: int
    growth_ratio: float
    python_blocks_per_request: float
    heap_bytes_per_request: float | None
    samples: list[Taken]


@dataclass(frozen=True, slots=True)
class Serving:
    """A server that runs, and how to ask it for its memory."""

    address: str
    sample: Callable[[], Sample]


# --- the server --------------------------------------------------------------------------------------------


@contextmanager
def serving(folder: Path, transport: str, program: Sequence[str] = ("-m", "bench.memory_server")) -> Iterator[Serving]:
    """A server of a small network, as a process of its own. Raises StartError if it does not start or end well."""
    model = folder / "repository" / "mlp" / "1" / "model.onnx"
    model.parent.mkdir(parents=True)
    onnx.save(mlp(), model)
    reader, writer = os.pipe()
    log = folder / "log"
    with os.fdopen(reader, "r") as samples, log.open("wb") as stderr:
        process = subprocess.Popen(
            [
                *(sys.executable, *program, str(writer), "serve", str(folder / "repository")),
                *(f"--transport={transport}", "--host=127.0.0.1", "--log-format=json"),
                *("--grpc-port=0", "--http-port=0", "--metrics-port=0"),
            ],
            # The settings are the ones above, whatever this shell has.
            env={name: value for name, value in os.environ.items() if not name.startswith("INFERD_")},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            pass_fds=[writer],
        )
        os.close(writer)

        def sample() -> Sample:
            process.send_signal(signal.SIGUSR1)
            ready, _, _ = select.select([samples], [], [], SAMPLE_TIMEOUT_S)
            line = samples.readline() if ready else ""
            if not line:
                raise StartError(f"the server told nothing about its memory; its log: {log.read_text()[-1000:]}")
            return cast("Sample", json.loads(line))

        try:
            yield Serving(f"127.0.0.1:{_port(process, log)}", sample)
            process.terminate()
            if code := process.wait(STOP_TIMEOUT_S):
                raise StartError(f"the server ended with {code}: {log.read_text()[-1000:]}")
        finally:
            process.kill()
            process.wait()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    """The port, once the server is ready."""
    end_s = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < end_s:
        # The last line may be half written.
        for line in log.read_text().splitlines(keepends=True):
            if line.endswith("\n") and line.startswith("{") and (record := json.loads(line))["message"] == "ready":
                return int(record["ports"]["gRPC"])
        time.sleep(POLL_S)
    raise StartError(f"the server did not start: {log.read_text()[-1000:]}")


# --- the load -----------------------------------------------------------------------------------------------


def messages(mix: Mix) -> tuple[bytes, ...]:
    """What to send in turn: one to four rows, and with ERRORS three kinds of bad requests."""
    good = [_message("mlp", rows, FEATURES) for rows in (1, 2, 3, 4, 1, 2, 3, 4, 1)]
    if mix is not Mix.ERRORS:
        return tuple(good)
    bad = [_message("mlp", 1, FEATURES + 1), _message("nothing", 1, FEATURES), good[0][:-1]]
    return tuple(message for one in bad for message in (*good, one))


def _message(model: str, rows: int, width: int) -> bytes:
    made = ModelInferRequest(model_name=model, id="memory")
    made.inputs.add(name="x", datatype="FP32", shape=[rows, width])
    made.raw_input_contents.append(np.linspace(-1, 1, rows * width, dtype="<f4").tobytes())
    return made.SerializeToString()


def offer(address: str, requests: tuple[bytes, ...], count: int, reconnect_after: int) -> Counter[Code]:
    """Send `count` requests, on new connections after every `reconnect_after`, and count the ends they took."""
    ends: Counter[Code] = Counter()
    while (left := count - ends.total()) > 0:
        before = ends.total()
        with Generator(Traffic(address, requests), LOAD, limit=min(left, reconnect_after)) as generator:
            for piece in generator.slices():
                ends[Code.OK] += piece.ok
                ends.update({Code(code): times for code, times in piece.failures.items()})
        if ends.total() == before:
            raise StartError(f"{address} does not answer any more, after {before} of {count} requests")
    return ends


def check_ends(mix: Mix, ends: Counter[Code]) -> None:
    """Raise StartError if the answers are not what the mix asks for: then the memory says nothing."""
    failed = ends.total() - ends[Code.OK]
    if mix is Mix.ERRORS:
        # A share of errors, not a number: every connection may have begun with the good ones.
        holds = 0.05 * ends.total() <= failed <= 0.15 * ends.total() and ends.keys() <= ERRORS_ENDS
    elif mix is Mix.CANCELLED:
        holds = failed >= 0.1 * ends.total() and ends.keys() <= CANCELLED_ENDS
    else:
        holds = failed == 0
    if not holds:
        found = ", ".join(f"{code.name} {times}" for code, times in sorted(ends.items()))
        raise StartError(f"requests did not end as they must: {found}")


# --- the judgement ------------------------------------------------------------------------------------------


def milestones(requests: int) -> list[int]:
    """After how many requests to take a sample."""
    first = min(FIRST_SAMPLE, requests // 2)
    tenths = [requests * tenth // 10 for tenth in range(1, 11)]
    return [first, *(tenth for tenth in tenths if tenth > first)]


def growth(samples: Sequence[Taken], transport: str, mix: Mix) -> Growth:
    """How much more the last sample has than the first."""
    first, last = samples[0], samples[-1]
    since = last["requests"] - first["requests"]
    before, after = first["memory"], last["memory"]
    heap = None if before["heap"] is None or after["heap"] is None else (after["heap"] - before["heap"]) / since
    return Growth(
        requests=last["requests"],
        transport=transport,
        mix=mix.value,
        rss_first=before["rss"],
        rss_last=after["rss"],
        growth_ratio=after["rss"] / before["rss"],
        python_blocks_per_request=(after["python_blocks"] - before["python_blocks"]) / since,
        heap_bytes_per_request=heap,
        samples=list(samples),
    )


def measure(server: Serving, transport: str, mix: Mix, requests: int, reconnect: int) -> Growth:
    """Offer the load and sample on the way; between two samples no connection is open."""
    samples: list[Taken] = []
    sent = 0
    server.sample()  # so that what sampling itself needs is there before the first one that counts
    for milestone in milestones(requests):
        count = milestone - sent
        if mix is Mix.CANCELLED:
            ends = cancel(server.address, messages(mix), count, seed=milestone)
        else:
            ends = offer(server.address, messages(mix), count, reconnect if mix is Mix.CONNECTIONS else count)
        check_ends(mix, ends)
        sent = milestone
        samples.append(Taken(requests=sent, memory=server.sample()))
        print(f"{sent:,} requests: {samples[-1]['memory']['rss'] / 1e6:,.1f} MB", file=sys.stderr)
    return growth(samples, transport, mix)


def table(found: Growth) -> Table:
    """One line per sample."""
    shown = Table(title=f"{found['transport']}, {found['mix']}", title_justify="left", box=box.SIMPLE)
    names = ("requests", "RSS MB", "USS MB", "heap MB", "blocks", "gc objects", "threads", "files", "native")
    for name in names:
        shown.add_column(name, justify="right")
    for taken in found["samples"]:
        memory = taken["memory"]
        sizes = (memory["rss"], memory["uss"], memory["heap"])
        megabytes = ["" if size is None else f"{size / 1e6:,.2f}" for size in sizes]
        counts = [f"{memory[name]:,}" for name in ("python_blocks", "gc_objects", "threads", "files")]
        native = "" if memory["native"] is None else str(sum(memory["native"].values()))
        shown.add_row(f"{taken['requests']:,}", *megabytes, *counts, native)
    return shown


@click.command()
@click.option("--requests", type=click.IntRange(min=100), default=1_000_000, show_default=True)
@click.option("--transport", default="native", show_default=True)
@click.option("--mix", type=click.Choice([mix.value for mix in Mix]), default=Mix.PLAIN.value, show_default=True)
@click.option(
    "--reconnect", type=click.IntRange(min=1), default=1000, show_default=True, help="With connections: after how many."
)
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write what was found there."
)
def memory(requests: int, transport: str, mix: str, reconnect: int, json_path: Path | None) -> None:
    """Send requests to a server and fail if its memory grows.

    The first sample is taken after 10,000 requests, by when everything that is made once is there, and then one
    after every tenth. The resident set may grow by 2 % from the first to the last.
    """
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), transport) as server:
        found = measure(server, transport, Mix(mix), requests, reconnect)
    Console(width=None if sys.stdout.isatty() else 120).print(table(found))
    if json_path is not None:
        json_path.write_text(json.dumps(found, indent=1) + "\n")
    holds = found["growth_ratio"] <= GROWTH_BOUND
    verdict = "holds" if holds else "GROWS"
    click.echo(f"{verdict}: the resident set is {found['growth_ratio']:.4f} times the first; at most {GROWTH_BOUND}")
    sys.exit(0 if holds else 1)
