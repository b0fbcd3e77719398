"""Settings of where models run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from inferd.config.kinds import FilePath, Section


class DeviceSettings(Section):
    """Where models run: the CPU, or NVIDIA GPUs."""

    kind: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        description="What models run on: auto is GPUs where all that they need is there, else the CPU; cuda refuses to "
        "start without GPUs; cpu never looks for any.",
    )
    fallback: Literal["none", "cpu"] = Field(
        default="none",
        description="What runs a model whose instance_group is of KIND_GPU where no GPU can be used: none fails the "
        "model, with the reason; cpu serves it from the CPU, and warnings, metrics and the status page say so.",
    )
    cache_path: FilePath | None = Field(
        default=None,
        description="Folder for what takes long to make and may be kept from one start to the next, such as TensorRT's "
        "engines; nothing is kept without one. It must be this user's alone.",
    )
    slot_memory_bytes: int = Field(
        default=0,
        ge=0,
        description="Most memory of a GPU that the batches of one model version may take there, beside what ONNX "
        "Runtime uses (gpu_mem_limit in config.pbtxt); 0 sets no bound.",
    )
