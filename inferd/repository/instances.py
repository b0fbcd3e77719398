"""The instance_group section of config.pbtxt: how many slots a model gets, and on what."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from inferd.proto.model_config_pb2 import ModelInstanceGroup
from inferd.repository.faults import fault

# A typing error must not become a million slots.
MOST_INSTANCES = 1024


@dataclass(frozen=True, slots=True)
class GroupDecl:
    """One group: so many instances on the CPU, or on each of its GPUs."""

    count: int
    on_cpu: bool
    gpus: tuple[int, ...] = ()
    """CUDA device numbers; none is all that there are."""


@dataclass(frozen=True, slots=True)
class InstancesDecl:
    """The instances of all groups together."""

    count: int = 1
    wanted: str = ""
    """The kind of device that only some machines have and the file asks for, such as "KIND_GPU"; mostly none."""
    gpus: tuple[int, ...] = ()
    """CUDA device numbers that are named; none is any."""
    needs_gpu: bool = False
    """Whether some are for a GPU and nothing else."""
    groups: tuple[GroupDecl, ...] = ()
    """The groups one by one; none where the file has none."""


def read_instances(groups: Iterable[ModelInstanceGroup]) -> InstancesDecl:
    """Add up the groups. Raises RepositoryError for what cannot be."""
    total, wanted, gpus, needs_gpu = 0, "", set[int](), False
    decls: list[GroupDecl] = []
    for group in groups:
        if group.kind not in ModelInstanceGroup.Kind.values():
            raise fault(f"instance_group kind {group.kind} is unknown")
        if group.count < 0:
            raise fault(f"instance_group count must be 1 or more, not {group.count}")
        if group.gpus and group.kind == ModelInstanceGroup.KIND_CPU:
            raise fault("instance_group of KIND_CPU names gpus; remove them, or make it KIND_GPU")
        if min(group.gpus, default=0) < 0:
            raise fault(f"instance_group gpus must be 0 or more, not {min(group.gpus)}")
        if group.kind in (ModelInstanceGroup.KIND_GPU, ModelInstanceGroup.KIND_MODEL):
            wanted = ModelInstanceGroup.Kind.Name(group.kind)
        elif group.gpus:
            wanted = "KIND_GPU"
        needs_gpu |= group.kind == ModelInstanceGroup.KIND_GPU or bool(group.gpus)
        total += group.count or 1
        gpus.update(group.gpus)
        on_cpu = group.kind == ModelInstanceGroup.KIND_CPU
        decls.append(GroupDecl(group.count or 1, on_cpu, tuple(sorted(set(group.gpus)))))
    if total > MOST_INSTANCES:
        raise fault(f"instance_group asks for {total} instances; {MOST_INSTANCES} is the most")
    return InstancesDecl(total or 1, wanted, tuple(sorted(gpus)), needs_gpu, tuple(decls))
