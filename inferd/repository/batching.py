"""The dynamic_batching section of config.pbtxt: how requests wait, and which of them run together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from inferd.proto.model_config_pb2 import ModelConfig, ModelDynamicBatching, ModelQueuePolicy
from inferd.repository.faults import fault

# A typing error must not become a wait that never ends, nor a number that fits nowhere.
LONGEST_QUEUE_DELAY_US = 3_600_000_000
LONGEST_QUEUE_TIMEOUT_US = 10 * 365 * 24 * LONGEST_QUEUE_DELAY_US
MOST_PRIORITY_LEVELS = 256


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """How long requests of one priority may wait, and how many of them; 0 is not said."""

    timeout_action: Literal["reject", "delay"] = "reject"
    default_timeout_ns: int = 0
    allow_timeout_override: bool = False
    """A request may ask for a shorter time with its parameter `timeout`, and for any where there is none."""
    max_queue_size: int = 0


@dataclass(frozen=True, slots=True)
class BatchingDecl:
    """What the file says about batches; None where it says nothing."""

    max_batch_size: int | None = None
    preferred_sizes: tuple[int, ...] = ()
    max_queue_delay_ns: int | None = None
    preserve_ordering: bool = False
    priority_levels: int = 0
    """Levels are 1, which goes first, to this one; 0 is none."""
    default_priority_level: int = 0
    """Of requests that name none; 0 where there are no levels."""
    default_policy: QueuePolicy = QueuePolicy()
    """Of every level that has no policy of its own."""
    priority_policies: Mapping[int, QueuePolicy] = field(default_factory=lambda: MappingProxyType({}))
    declared: bool = False
    """The file has a dynamic_batching section, be it an empty one."""


def read_batching(config: ModelConfig) -> tuple[BatchingDecl, list[str]]:
    """What the file says about batches, and warnings. Raises RepositoryError for what contradicts itself."""
    max_batch_size = config.max_batch_size if config.HasField("max_batch_size") else None
    if max_batch_size is not None and max_batch_size < 0:
        raise fault(f"max_batch_size must be 0 (no batch axis) or more, not {max_batch_size}")
    if not config.HasField("dynamic_batching"):
        return BatchingDecl(max_batch_size=max_batch_size), []
    asked: ModelDynamicBatching = config.dynamic_batching
    for size in asked.preferred_batch_size:
        if size < 1 or (max_batch_size is not None and size > max_batch_size):
            most = "max_batch_size" if max_batch_size is None else f"max_batch_size ({max_batch_size})"
            raise fault(f"preferred_batch_size must be from 1 to {most}, not {size}")
    if asked.max_queue_delay_microseconds > LONGEST_QUEUE_DELAY_US:
        raise fault("max_queue_delay_microseconds is more than an hour")
    _check_levels(asked)
    batching = BatchingDecl(
        max_batch_size=max_batch_size,
        preferred_sizes=tuple(sorted(set(asked.preferred_batch_size))),
        max_queue_delay_ns=asked.max_queue_delay_microseconds * 1_000 or None,
        preserve_ordering=asked.preserve_ordering,
        priority_levels=asked.priority_levels,
        default_priority_level=asked.default_priority_level,
        default_policy=_policy("default_queue_policy", asked.default_queue_policy),
        priority_policies=MappingProxyType(
            {
                level: _policy(f"priority_queue_policy of level {level}", asked.priority_queue_policy[level])
                for level in sorted(asked.priority_queue_policy)
            }
        ),
        declared=True,
    )
    if batching.preserve_ordering:
        _check_order(batching)
    idle = ["'dynamic_batching' batches nothing while max_batch_size is 0"]
    return batching, idle if max_batch_size == 0 else []


def _check_levels(asked: ModelDynamicBatching) -> None:
    levels, default = asked.priority_levels, asked.default_priority_level
    if levels > MOST_PRIORITY_LEVELS:
        raise fault(f"priority_levels must be at most {MOST_PRIORITY_LEVELS}, not {levels}")
    if levels and not 1 <= default <= levels:
        raise fault(f"default_priority_level must be from 1 to priority_levels ({levels}), not {default}")
    if not levels and (default or asked.priority_queue_policy):
        said = "default_priority_level" if default else "priority_queue_policy"
        raise fault(f"{said} needs priority_levels, which says how many there are")
    for level in sorted(asked.priority_queue_policy):
        if not 1 <= level <= levels:
            raise fault(f"priority_queue_policy must be for levels from 1 to priority_levels ({levels}), not {level}")


def _check_order(batching: BatchingDecl) -> None:
    """Answers in the order of their requests leave nothing to overtake with."""
    if batching.priority_levels > 1:
        raise fault(f"preserve_ordering allows one priority level, and priority_levels is {batching.priority_levels}")
    for policy in (batching.default_policy, *batching.priority_policies.values()):
        is_timed = policy.default_timeout_ns or policy.allow_timeout_override
        if is_timed and policy.timeout_action == "delay":
            raise fault("preserve_ordering contradicts timeout_action DELAY, which lets others overtake; use REJECT")


def _policy(what: str, asked: ModelQueuePolicy) -> QueuePolicy:
    if asked.timeout_action not in (ModelQueuePolicy.REJECT, ModelQueuePolicy.DELAY):
        raise fault(f"{what}: timeout_action {asked.timeout_action} is unknown")
    if asked.default_timeout_microseconds > LONGEST_QUEUE_TIMEOUT_US:
        raise fault(f"{what}: default_timeout_microseconds is more than ten years")
    return QueuePolicy(
        timeout_action="delay" if asked.timeout_action == ModelQueuePolicy.DELAY else "reject",
        default_timeout_ns=asked.default_timeout_microseconds * 1_000,
        allow_timeout_override=asked.allow_timeout_override,
        max_queue_size=asked.max_queue_size,
    )
