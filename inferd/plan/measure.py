"""Run times for a plan: measured here as a server does at load, or taken from a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferd.config import Settings
from inferd.cpus import split_threads, usable_cpus
from inferd.device import Devices
from inferd.errors import StartError
from inferd.loading import load
from inferd.pace import Pace
from inferd.plan.pod import Pod, Timings, earned
from inferd.repository import ModelDir, Reader

# What the event loop spends on a small request, and what a batch waits for two threads to wake: `python -m bench plan`
# compares both with a real run.
REQUEST_US = 8.0
HOP_US = 100.0


@dataclass(frozen=True, slots=True)
class Found:
    """A pod, and where its run times are from."""

    name: str
    pod: Pod
    source: str


def measured(path: Path, model: str | None, settings: Settings, request_us: float, hop_us: float) -> Found:
    """Load a model as a server would and take the run times of its warm-up. Raises StartError, ModelFailed."""
    chosen = _choose(Reader(path, follow_links=settings.models.follow_links).scan().models, model, path)
    version = chosen.versions[-1]
    cpus = settings.threads.cpus or usable_cpus()
    loaded = load(chosen.decl, version, settings, split_threads(cpus, chosen.decl.instance_count), Devices())
    if not loaded.samples:
        raise StartError(f"model '{chosen.decl.name}': no generated input would run; name run times with --timings")
    pace = Pace(loaded.signature.max_rows)
    for _, rows, run_ns in loaded.samples:
        pace.observe(rows, run_ns)
    max_rows = pace.best if settings.batching.learn and loaded.learns else loaded.signature.max_rows
    timings = earned([(rows, run_ns) for _, rows, run_ns in loaded.samples])
    delay_ns = loaded.decl.batching.max_queue_delay_ns
    pod = Pod(
        timings,
        max_rows if loaded.signature.batched else 1,
        instances=chosen.decl.instance_count,
        inline=timings.of(max_rows) <= settings.batching.inline_us * 1000,
        request_ns=request_us * 1000,
        hop_ns=hop_us * 1000,
        max_delay_ns=float(settings.batching.max_queue_delay_us * 1000 if delay_ns is None else delay_ns),
        max_queue_rows=settings.batching.max_queue_rows,
    )
    return Found(chosen.decl.name, pod, f"measured here, {cpus:g} CPUs")


def taken(path: Path, settings: Settings, request_us: float, hop_us: float) -> Found:
    """From a file: ``{"model": "m", "max_rows": 8, "instances": 1, "run_ms": {"1": 2.0, "8": 9.5}}``.

    Raises StartError where it is not like that.
    """
    try:
        said = json.loads(path.read_text())
        timings = Timings({int(rows): float(run_ms) * 1e6 for rows, run_ms in said["run_ms"].items()})
        max_rows, instances = int(said.get("max_rows", max(timings.run_ns))), int(said.get("instances", 1))
        if max_rows < 1 or instances < 1:
            raise ValueError("max_rows and instances are 1 or more")
        unknown = sorted(set(said) - {"model", "max_rows", "instances", "run_ms"})
        if unknown:
            raise ValueError(f"unknown: {', '.join(unknown)}")
    except OSError as failure:
        raise StartError(f"{path}: {failure.strerror}") from failure
    except (ValueError, KeyError, TypeError, AttributeError) as failure:
        raise StartError(f'{path}: not run times such as {{"run_ms": {{"1": 2.0, "8": 9.5}}}}: {failure}') from failure
    pod = Pod(
        timings,
        max_rows,
        instances=instances,
        inline=timings.of(max_rows) <= settings.batching.inline_us * 1000,
        request_ns=request_us * 1000,
        hop_ns=hop_us * 1000,
        max_delay_ns=settings.batching.max_queue_delay_us * 1000,
        max_queue_rows=settings.batching.max_queue_rows,
    )
    return Found(str(said.get("model", path.stem)), pod, f"from {path.name}")


def told(found: Found) -> Mapping[str, Any]:
    """The pod as JSON, in the units of the flags."""
    pod = found.pod
    return {
        "model": found.name,
        "source": found.source,
        "run_ms": {str(rows): run_ns / 1e6 for rows, run_ns in sorted(pod.timings.run_ns.items())},
        "max_rows": pod.max_rows,
        "instances": pod.instances,
        "on_the_loop": pod.inline,
        "request_us": pod.request_ns / 1e3,
        "hop_us": pod.hop_ns / 1e3,
    }


def _choose(models: tuple[ModelDir, ...] | list[ModelDir], name: str | None, path: Path) -> ModelDir:
    found = [one for one in models if name in (None, one.decl.name)]
    if len(found) == 1 and found[0].versions:
        return found[0]
    names = ", ".join(sorted(one.decl.name for one in models)) or "none"
    raise StartError(f"{path}: name one model with --model (there: {names})")
