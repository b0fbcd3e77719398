"""From a version folder to a model that is ready to serve: load, decide on batching, warm up, learn its pace."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from inferd import batchable, synthetic
from inferd._native.batch import alone
from inferd._native.signature import Signature
from inferd.batchable import Batchability
from inferd.config import Settings
from inferd.device import Device
from inferd.errors import InferdError, ModelFailed
from inferd.pace import ENOUGH, Pace
from inferd.repository import ModelDecl, RuntimeDecl, TensorDecl, VersionDir
from inferd.session import Session, SessionOptions, Slot, TensorInfo

log = logging.getLogger("inferd.loading")

REPORTED_ROWS = (1, 8, 32)
# config.pbtxt's optimization.graph.level: 0 everything, 1 up to extended, -1 basic, 2 none.
GRAPH_LEVELS: Mapping[int, int | None] = MappingProxyType({0: None, 1: 2, -1: 1, 2: 0})


@dataclass(frozen=True, slots=True)
class Loaded:
    """One model version in memory, warm, with what was learnt on the way."""

    decl: ModelDecl
    version: int
    session: Session
    signature: Signature
    slots: tuple[Slot, ...]
    batching: Batchability
    threads: int
    samples: tuple[tuple[int, int, int], ...]  # (size class, rows, run ns) of the warm-up's runs
    run_ns: Mapping[int, int]  # by rows, of REPORTED_ROWS
    open_length: int | None  # what those runs had for dimensions that the file leaves open, if it does
    warnings: tuple[str, ...]

    @property
    def learns(self) -> bool:
        """False where config.pbtxt asks for sizes of its own."""
        return self.signature.batched and not self.decl.batching.preferred_sizes


def load(decl: ModelDecl, version: VersionDir, settings: Settings, threads: int, device: Device) -> Loaded:
    """Load one version and make it warm. Blocks; call it off the loop.

    Raises ModelFailed with the reason and, where there is one, the remedy.
    """
    options = _options(decl.runtime, threads, device)
    session = Session(version.model_path, options, device)
    _check_declared("input", decl.inputs, session.inputs, decl.batching.max_batch_size, decl.name)
    _check_declared("output", decl.outputs, session.outputs, decl.batching.max_batch_size, decl.name)
    warnings = [*decl.warnings, *_not_here(decl, device)]
    batching, max_rows = _decide(decl, session, settings, warnings)
    signature = batchable.signature_of(
        session,
        decl.name,
        str(version.version),
        batched=batching.batched,
        max_rows=max_rows,
        # Nobody told clients of a largest batch, so none of their requests is wrong for its number of rows.
        lenient=decl.batching.max_batch_size is None,
    )
    slots = tuple(Slot(session) for _ in range(decl.instance_count))
    length, failure = batchable.find_length(session, signature, slots[0])
    if length is None:
        warnings.append(f"it could not be warmed up, its first requests will be slow: {failure}")
    samples: list[tuple[int, int, int]] = []
    run_ns: dict[int, int] = {}
    if length is not None:
        budget_ns = settings.warmup.budget_ms * 1_000_000
        samples, run_ns = _warm(session, signature, slots, length, max_rows, budget_ns)
    return Loaded(
        decl=decl,
        version=version.version,
        session=session,
        signature=signature,
        slots=slots,
        batching=batching,
        threads=options.intra_op_threads,
        samples=tuple(samples),
        run_ns=run_ns,
        open_length=length if batchable.has_open_dimensions(session.inputs, signature.batched) else None,
        warnings=tuple(warnings),
    )


def _options(decl: RuntimeDecl, threads: int, device: Device) -> SessionOptions:
    return SessionOptions(
        intra_op_threads=decl.intra_op_threads or threads,
        inter_op_threads=decl.inter_op_threads or 1,
        parallel=decl.parallel,
        memory_arena=decl.memory_arena,
        memory_pattern=decl.memory_pattern,
        optimization_level=GRAPH_LEVELS[decl.graph_level],
        entries=decl.session_entries,
        shrink_arenas=tuple(arena for arena in decl.shrink_arenas if arena in device.arenas()),
    )


def _not_here(decl: ModelDecl, device: Device) -> Iterator[str]:
    """Warnings about what the file asks for and this machine lacks. The model is served all the same."""
    if device.ort_name != "cpu":
        return
    instances, runtime = decl.instances, decl.runtime
    if instances.wanted:
        named = f" with gpus {', '.join(map(str, instances.gpus))}" if instances.gpus else ""
        yield f"config.pbtxt: instance_group asks for {instances.wanted}{named}; no GPU is used here, the CPU runs it"
    missing = [arena for arena in runtime.shrink_arenas if arena not in device.arenas()]
    cuda = [*runtime.cuda_options, *(f"memory.enable_memory_arena_shrinkage {arena}" for arena in missing)]
    if cuda:
        yield f"config.pbtxt: for CUDA, which is not used here, and so without effect: {', '.join(cuda)}"


def _decide(decl: ModelDecl, session: Session, settings: Settings, warnings: list[str]) -> tuple[Batchability, int]:
    """Whether to batch and up to how many rows: config.pbtxt if it says, else the probe."""
    said = decl.batching.max_batch_size
    if said is None:
        found = batchable.probe(session, decl.name)
        return found, settings.batching.max_batch_size if found.batched else 1
    if said == 0:
        return Batchability(False, "config.pbtxt says max_batch_size: 0"), 1
    reason = batchable.declared(session)
    if reason is not None:
        raise ModelFailed(
            f"config.pbtxt says max_batch_size: {said}, but {reason}; a batch needs a dynamic first dimension "
            "in every input and output. Set max_batch_size: 0 or export the model with one"
        )
    found = batchable.probe(session, decl.name)
    if not found.batched and found.length is not None:
        warnings.append(
            f"config.pbtxt says max_batch_size: {said}, but {found.reason}; "
            "set max_batch_size: 0 unless you know better"
        )
    return Batchability(True, f"config.pbtxt says max_batch_size: {said}", found.length), said


def _check_declared(
    what: str, decls: tuple[TensorDecl, ...], infos: tuple[TensorInfo, ...], max_batch_size: int | None, model: str
) -> None:
    """config.pbtxt may say less than the file, but nothing that is not so."""
    by_name = {info.name: info for info in infos}
    for decl in decls:
        info = by_name.get(decl.name)
        if info is None:
            known = ", ".join(f"'{name}'" for name in by_name)
            raise ModelFailed(
                f"config.pbtxt names the {what} '{decl.name}', which model '{model}' does not have; it has {known}"
            )
        if decl.datatype and decl.datatype != info.datatype:
            raise ModelFailed(
                f"config.pbtxt says {what} '{decl.name}' is {decl.datatype}; the model says {info.datatype}"
            )
        shape = info.shape[1:] if max_batch_size else info.shape
        if not decl.dims:
            continue
        if len(decl.dims) != len(shape) or any(
            a >= 0 and b >= 0 and a != b for a, b in zip(decl.dims, shape, strict=True)
        ):
            raise ModelFailed(
                f"config.pbtxt says {what} '{decl.name}' has dims {list(decl.dims)}; the model says {list(shape)}"
                + (" without the batch dimension" if max_batch_size else "")
            )


def _warm(
    session: Session, signature: Signature, slots: tuple[Slot, ...], length: int, max_rows: int, budget_ns: int
) -> tuple[list[tuple[int, int, int]], dict[int, int]]:
    """Run growing batches until larger ones win nothing or the time is up; then the sizes people ask about.

    Every slot runs each size that may be used at least once, so that no first caller pays for it.
    """
    pace = Pace(max_rows)
    samples: list[tuple[int, int, int]] = []
    run_ns: dict[int, int] = {}
    end_ns = time.monotonic_ns() + budget_ns

    def timed(slot: Slot, rows: int) -> tuple[int, int]:
        batch = alone(signature, synthetic.request(signature, session.inputs, rows, length))
        started_ns = time.monotonic_ns()
        slot.run(batch)
        return batch.size_class, time.monotonic_ns() - started_ns

    try:
        for slot in slots:
            timed(slot, 1)
        while True:
            rows = pace.limit
            if pace.row_ns(rows) is not None and pace.settled:
                break
            expected_ns = (pace.run_ns(rows) or 0) * (ENOUGH + len(slots))
            if time.monotonic_ns() + expected_ns > end_ns and pace.row_ns(1) is not None:
                break
            for slot in slots:
                timed(slot, rows)  # the first run of a size allocates, so it does not count
            for _ in range(ENOUGH):
                size_class, took_ns = timed(slots[0], rows)
                samples.append((size_class, rows, took_ns))
                pace.observe(rows, took_ns)
        for rows in REPORTED_ROWS:
            known = pace.row_ns(rows)
            if known is not None:
                run_ns[rows] = int(known * rows)
            elif rows <= max_rows and time.monotonic_ns() + (pace.run_ns(rows) or 0) * 2 < end_ns:
                timed(slots[0], rows)
                run_ns[rows] = timed(slots[0], rows)[1]
    except InferdError as failure:
        log.warning("warm-up stopped early", extra={"model": signature.model, "reason": str(failure)})
    return samples, run_ns
