"""The instance_group section of config.pbtxt: how many slots a model gets, and on what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from inferd.proto.model_config_pb2 import ModelInstanceGroup
from inferd.repository.faults import fault

KINDS_REFUSED: Mapping[int, str] = MappingProxyType(
    {
        ModelInstanceGroup.KIND_GPU: "KIND_GPU is not offered: the CUDA path is not built yet; use KIND_CPU",
        ModelInstanceGroup.KIND_MODEL: "KIND_MODEL is not offered; use KIND_CPU",
    }
)

# A typing error must not become a million sessions.
MOST_INSTANCES = 1024


def read_instance_count(groups: Iterable[ModelInstanceGroup]) -> int:
    """The instances of all groups together. Raises RepositoryError for a kind that is not offered."""
    total = 0
    for group in groups:
        if group.kind not in (ModelInstanceGroup.KIND_AUTO, ModelInstanceGroup.KIND_CPU):
            raise fault("instance_group " + KINDS_REFUSED.get(group.kind, f"kind {group.kind} is unknown"))
        if group.count < 0:
            raise fault(f"instance_group count must be 1 or more, not {group.count}")
        total += group.count or 1
    if total > MOST_INSTANCES:
        raise fault(f"instance_group asks for {total} instances; {MOST_INSTANCES} is the most")
    return total or 1
