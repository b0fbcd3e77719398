"""``inferd check``: load everything as ``inferd serve`` would, open no port, and say what was found."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from inferd.banner import tensors
from inferd.config import Settings
from inferd.cpus import split_threads, usable_cpus
from inferd.device import Devices, open_devices
from inferd.errors import InferdError, StartError
from inferd.loading import Loaded, load
from inferd.pace import Pace
from inferd.repository import ModelDir, Reader, VersionDir, digest
from inferd.session import runtime_build
from inferd.warmup import REPORTED_ROWS


@dataclass(frozen=True, slots=True)
class Finding:
    """What is to be said about one model version; `error` is empty if it can be served."""

    model: str
    version: int
    sha256: str = ""
    inputs: str = ""
    outputs: str = ""
    batched: bool = False
    batching: str = ""
    max_rows: int = 0
    best_rows: int = 0
    threads: int = 0
    run_ms: Mapping[int, float] | None = None
    open_dimensions: int | None = None
    warnings: Sequence[str] = ()
    error: str = ""


def check(path: Path, settings: Settings, out_json: bool, stream: TextIO | None = None) -> int:
    """Report on every model at `path`; 0 if all can be served. Raises StartError naming those that cannot."""
    out = stream if stream is not None else sys.stdout
    found = Reader(path, follow_links=settings.models.follow_links).scan()
    instances = sum(len(model.versions) * model.decl.instance_count for model in found.models)
    threads = split_threads(settings.threads.cpus or usable_cpus(), max(instances, 1))
    devices = open_devices(settings.device.kind, runtime_build())
    findings = [Finding(one.name, 0, error=one.reason) for one in found.broken]
    if not out_json:
        for finding in findings:
            _print(finding, out)
    for model in found.models:
        for version in model.versions:
            finding = _examine(model, version, settings, threads, devices)
            findings.append(finding)
            if not out_json:
                _print(finding, out)
    if out_json:
        json.dump([asdict(finding) for finding in findings], out, indent=2)
        out.write("\n")
    broken = [finding for finding in findings if finding.error]
    if broken:
        raise StartError("; ".join(f"model '{one.model}': {one.error}" for one in broken))
    if not out_json:
        out.write(f"{len(findings)} model version(s) can be served\n")
    return 0


def _examine(model: ModelDir, version: VersionDir, settings: Settings, threads: int, devices: Devices) -> Finding:
    name = model.decl.name
    try:
        loaded = load(model.decl, version, settings, threads, devices)
    except InferdError as failure:
        return Finding(name, version.version, warnings=model.decl.warnings, error=str(failure))
    return Finding(
        name,
        version.version,
        sha256=digest(version.model_path),
        inputs=tensors(loaded.session.inputs) or "none",
        outputs=tensors(loaded.session.outputs),
        batched=loaded.signature.batched,
        batching=loaded.batching.reason,
        max_rows=loaded.signature.max_rows,
        best_rows=_best_rows(loaded, settings),
        threads=loaded.threads,
        run_ms={rows: run_ns / 1e6 for rows, run_ns in loaded.run_ns.items()},
        open_dimensions=loaded.open_length,
        warnings=loaded.warnings,
    )


def _best_rows(loaded: Loaded, settings: Settings) -> int:
    """The batch size that the warm-up's run times speak for."""
    if not (settings.batching.learn and loaded.learns):
        return loaded.signature.max_rows
    pace = Pace(loaded.signature.max_rows)
    for _, rows, run_ns in loaded.samples:
        pace.observe(rows, run_ns)
    return pace.best


def _print(finding: Finding, out: TextIO) -> None:
    out.write(f"model {finding.model}" + (f" version {finding.version}\n" if finding.version else "\n"))
    if finding.error:
        out.write(f"  error      {finding.error}\n")
    else:
        out.write(f"  inputs     {finding.inputs}\n")
        out.write(f"  outputs    {finding.outputs}\n")
        if finding.batched:
            out.write(f"  batchable  yes, up to {finding.max_rows} rows: {finding.batching}\n")
            out.write(f"  best batch {finding.best_rows} rows\n")
        else:
            out.write(f"  batchable  no: {finding.batching}\n")
        out.write(f"  run time   {_run_times(finding)}\n")
        out.write(f"  threads    {finding.threads}\n")
        out.write(f"  sha256     {finding.sha256}\n")
    for warning in finding.warnings:
        out.write(f"  warning    {warning}\n")
    out.flush()


def _run_times(finding: Finding) -> str:
    run_ms = finding.run_ms or {}
    if not run_ms:
        return "not measured: no generated input would run"
    asked = REPORTED_ROWS if finding.batched else REPORTED_ROWS[:1]
    told = [f"{run_ms[rows]:.3g} ms at {rows}" for rows in asked if rows in run_ms]
    late = [str(rows) for rows in asked if rows not in run_ms and rows <= finding.max_rows]
    if finding.open_dimensions is not None:
        told[-1] += f", with {finding.open_dimensions} for each open dimension"
    return ", ".join(told) + (f" (no time to measure {', '.join(late)}: set INFERD_WARMUP_BUDGET_MS)" if late else "")
