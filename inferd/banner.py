"""What a person reads about models when ``inferd serve`` is ready, in words that ``inferd check`` shares."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TextIO

from inferd.config import Settings
from inferd.models import Model, State
from inferd.session import TensorInfo

log = logging.getLogger("inferd")


def tensors(infos: Sequence[TensorInfo]) -> str:
    """Inputs or outputs in one line: name, datatype, shape with ? for any length."""
    return ", ".join(
        f"{info.name} {info.datatype}[{','.join('?' if dim < 0 else str(dim) for dim in info.wire)}]" for info in infos
    )


def batching(model: Model) -> str:
    """Whether and how far requests for the model share runs."""
    assert model.loaded is not None
    if not model.loaded.signature.batched:
        return f"off: {model.loaded.batching.reason}"
    assert model.paces is not None
    most, now = model.loaded.signature.max_rows, model.paces.largest_batch
    return f"up to {now} rows" + (f" of {most} allowed, as measured so far" if now < most else "")


def print_ready(models: Iterable[Model], settings: Settings, ports: Mapping[str, int], stream: TextIO) -> None:
    """Tell what is served, then that it is ready: as log records if the log is JSON, else as text."""
    ready = [model for model in models if model.state is State.READY]
    if settings.log.format == "json":
        for model in ready:
            assert model.loaded is not None
            log.info("serving model", extra=_facts(model))
        log.info("ready", extra={"host": settings.host, "ports": dict(ports)})
        return
    for model in ready:
        assert model.loaded is not None
        loaded = model.loaded
        stream.write(f"model {model.name} version {model.version}\n")
        stream.write(f"  inputs    {tensors(loaded.session.inputs) or 'none'}\n")
        stream.write(f"  outputs   {tensors(loaded.session.outputs)}\n")
        stream.write(f"  batching  {batching(model)}\n")
        stream.write(f"  threads   {loaded.threads} for each of {len(loaded.slots)} instance(s)\n")
    listed = ", ".join(f"{name} {port}" for name, port in ports.items())
    stream.write(f"ready: {len(ready)} model version(s) on {settings.host}: {listed}\n")
    stream.flush()


def _facts(model: Model) -> dict[str, object]:
    assert model.loaded is not None
    return {
        "model": model.name,
        "version": model.version,
        "inputs": tensors(model.loaded.session.inputs),
        "outputs": tensors(model.loaded.session.outputs),
        "batching": batching(model),
        "threads": model.loaded.threads,
        "instances": len(model.loaded.slots),
    }
