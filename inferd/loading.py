"""From a version folder to a model that is ready to serve: load, decide on batching, warm up, learn its pace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from inferd import batchable, completing
from inferd._native.signature import Signature
from inferd.batchable import Batchability
from inferd.config import Settings
from inferd.device import Device, Devices
from inferd.engines import with_folders
from inferd.errors import ModelFailed
from inferd.repository import GroupDecl, ModelDecl, VersionDir
from inferd.session import Session, SessionOptions, Slot
from inferd.warmup import Warmup

# config.pbtxt's optimization.graph.level: 0 everything, 1 up to extended, -1 basic, 2 none.
GRAPH_LEVELS: Mapping[int, int | None] = MappingProxyType({0: None, 1: 2, -1: 1, 2: 0})


GPU_SLOTS = 2


@dataclass(frozen=True, slots=True)
class Loaded:
    """One model version in memory, warm, with what was learnt on the way."""

    decl: ModelDecl  # with every tensor of the model
    version: int
    sessions: tuple[Session, ...]  # one for each device that it runs on, alike
    signature: Signature
    slots: tuple[Slot, ...]
    spare_slot: Slot  # for short batches that no instance's thread runs
    batching: Batchability
    threads: int
    samples: tuple[tuple[int, int, int], ...]  # (size class, rows, run ns) of the warm-up's runs
    run_ns: Mapping[int, int]  # by rows, of REPORTED_ROWS
    open_length: int | None  # what those runs had for dimensions that the file leaves open, if it does
    warnings: tuple[str, ...]

    def close(self) -> None:
        """Give the memory back, on a thread that may wait; nothing runs any more."""
        for session in self.sessions:
            session.close()

    @property
    def session(self) -> Session:
        """The one whose tensors speak for all."""
        return self.sessions[0]

    def runs_on(self, device: Device) -> bool:
        """Whether a slot of it is there."""
        return any(session.device is device for session in self.sessions)

    @property
    def fell_back(self) -> bool:
        """Whether it asks for a GPU, and the CPU alone runs it."""
        return self.decl.instances.needs_gpu and all(session.device.gpu_number is None for session in self.sessions)

    @property
    def runs_inline(self) -> bool:
        """Whether the loop may run short batches of it."""
        return all(session.device.runs_inline for session in self.sessions)

    @property
    def learns(self) -> bool:
        """False where config.pbtxt asks for sizes of its own."""
        return self.signature.batched and not self.decl.batching.preferred_sizes


def load(decl: ModelDecl, version: VersionDir, settings: Settings, threads: int, devices: Devices) -> Loaded:
    """Load one version and make it warm. Blocks; call it off the loop.

    Raises ModelFailed with the reason and, where there is one, the remedy.
    """
    places = _places(decl, devices, settings)
    tensorrt, warnings = _tensorrt(decl, version, settings, places)
    sessions: list[Session] = []
    try:
        for device in places:
            options = _options(decl, threads, device, settings, tensorrt)
            sessions.append(Session(version.model_path, options, device))
            completing.agree(decl, sessions[-1])
        return _prepared(decl, version, settings, tuple(sessions), tuple(places.values()), warnings)
    except BaseException:
        for session in sessions:
            session.close()
        raise


def _places(decl: ModelDecl, devices: Devices, settings: Settings) -> Mapping[Device, int]:
    """How many slots on which device. Raises ModelFailed for a GPU that is needed and not there."""
    if not devices.gpus:
        if decl.instances.needs_gpu and settings.device.fallback == "none":
            raise ModelFailed(
                f"config.pbtxt: instance_group asks for {_asked(decl)}, and no GPU can be used: "
                f"{devices.missing or 'there is none'}; device.fallback cpu would run it on the CPU"
            )
        return {devices.cpu: decl.instance_count}
    found: dict[Device, int] = {}
    for group in decl.instances.groups or (GroupDecl(1, on_cpu=False),):
        if group.on_cpu:
            found[devices.cpu] = found.get(devices.cpu, 0) + group.count
            continue
        for number in group.gpus or tuple(gpu.number for gpu in devices.gpus):
            gpu = devices.gpu(number)
            if gpu is None:
                has = ", ".join(str(gpu.number) for gpu in devices.gpus)
                raise ModelFailed(f"config.pbtxt: instance_group names GPU {number}; there are {has}")
            found[gpu] = found.get(gpu, 0) + group.count
    # One slot on a GPU would leave it idle while a batch is copied.
    return {device: count if device.runs_inline else max(count, GPU_SLOTS) for device, count in found.items()}


def _prepared(
    decl: ModelDecl,
    version: VersionDir,
    settings: Settings,
    sessions: tuple[Session, ...],
    counts: tuple[int, ...],
    warned: Iterable[str],
) -> Loaded:
    session = sessions[0]
    warnings = [*decl.warnings, *warned, *_not_here(decl, session.device)]
    batching, max_rows = _decide(decl, session, settings, warnings)
    decl = completing.complete(decl, session, batched=batching.batched, why=batching.reason)
    signature = batchable.signature_of(
        session,
        decl.name,
        str(version.version),
        batched=batching.batched,
        max_rows=max_rows,
        # Nobody told clients of a largest batch, so none of their requests is wrong for its number of rows.
        lenient=decl.batching.max_batch_size is None,
        labels=decl.labels,
    )
    slots = tuple(Slot(one) for one, count in zip(sessions, counts, strict=True) for _ in range(count))
    length, failure = batchable.find_length(session, signature, slots[0])
    if length is None and not decl.warmup:
        warnings.append(f"it could not be warmed up, its first requests will be slow: {failure}")
    warmup = Warmup(session, signature, slots, length, settings.warmup.budget_ms * 1_000_000)
    measured = warmup.measure()
    warmup.rehearse(decl.warmup, rows_in_dims=decl.batching.max_batch_size is None)
    made = Loaded(
        decl=decl,
        version=version.version,
        sessions=sessions,
        signature=signature,
        slots=slots,
        spare_slot=Slot(session),
        batching=batching,
        threads=session.options.intra_op_threads,
        samples=tuple(measured.samples),
        run_ns=measured.run_ns,
        open_length=length if batchable.has_open_dimensions(session.inputs, signature.batched) else None,
        warnings=tuple(warnings),
    )
    learns = settings.batching.learn and made.learns
    largest = measured.pace.limit if learns else max_rows
    short_ns = settings.batching.inline_us * 1000 if made.runs_inline else 0
    warmup.prepare(measured.pace, largest, made.spare_slot, short_ns)
    return made


def _tensorrt(
    decl: ModelDecl, version: VersionDir, settings: Settings, places: Iterable[Device]
) -> tuple[Mapping[str, str] | None, list[str]]:
    """The TensorRT provider's options, if the file wants it and a GPU is there to want it on, and warnings."""
    wanted = decl.runtime.tensorrt_options
    if wanted is None or all(device.gpu_number is None for device in places):
        return None, []
    return with_folders(wanted, settings.device.cache_path, decl.name, version.version)


def _options(
    model: ModelDecl, threads: int, device: Device, settings: Settings, tensorrt: Mapping[str, str] | None
) -> SessionOptions:
    decl = model.runtime
    return SessionOptions(
        intra_op_threads=decl.intra_op_threads or threads,
        inter_op_threads=decl.inter_op_threads or 1,
        parallel=decl.parallel,
        memory_arena=decl.memory_arena,
        memory_pattern=decl.memory_pattern,
        optimization_level=GRAPH_LEVELS[decl.graph_level],
        entries=decl.session_entries,
        shrink_arenas=tuple(arena for arena in decl.shrink_arenas if arena in device.arenas()),
        cuda=decl.cuda_options,
        tensorrt=None if device.gpu_number is None else tensorrt,
        preferred_rows=model.batching.preferred_sizes,
        slot_memory_nbytes=settings.device.slot_memory_bytes,
    )


def _not_here(decl: ModelDecl, device: Device) -> Iterator[str]:
    """Warnings about what the file asks for and this machine lacks. The model is served all the same."""
    if device.ort_name != "cpu":
        return
    instances, runtime = decl.instances, decl.runtime
    if instances.wanted:
        yield f"config.pbtxt: instance_group asks for {_asked(decl)}; no GPU is used here, the CPU runs it"
    missing = [arena for arena in runtime.shrink_arenas if arena not in device.arenas()]
    cuda = [*sorted(runtime.cuda_options), *(f"memory.enable_memory_arena_shrinkage {arena}" for arena in missing)]
    if runtime.tensorrt_options is not None:
        cuda.append("execution accelerator 'tensorrt'")
    if cuda:
        yield f"config.pbtxt: for CUDA, which is not used here, and so without effect: {', '.join(cuda)}"


def _asked(decl: ModelDecl) -> str:
    instances = decl.instances
    return instances.wanted + (f" with gpus {', '.join(map(str, instances.gpus))}" if instances.gpus else "")


def _decide(decl: ModelDecl, session: Session, settings: Settings, warnings: list[str]) -> tuple[Batchability, int]:
    """Whether to batch and up to how many rows: config.pbtxt if it says, else the probe."""
    said = decl.batching.max_batch_size
    if said is None:
        found = batchable.probe(session, decl.name)
        if decl.batching.declared and not found.batched:
            warnings.append(
                f"config.pbtxt: 'dynamic_batching' batches nothing: {found.reason}; "
                "set max_batch_size if you know better"
            )
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
