"""Which fields of config.pbtxt are acted on: one table, and the walk that holds a file against it.

To give a field a meaning: act on it where its section is read and move its line here; `make docs` then writes
it into docs/model-config.md. A test holds the table against the schema, so a new field of the schema must be
given a place, and its meaning in docs.py, before the tests pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from types import MappingProxyType

from google.protobuf.message import Message


class Place(Enum):
    """What inferd does with a field that a file sets."""

    ACTED = "the field means what it means elsewhere"
    INSIDE = "the fields inside it have places of their own"
    IGNORED = "answers are the same without it: a warning names it"
    REFUSED = "answers could differ without it: the model is not served"


FIELDS = MappingProxyType(
    {
        "name": Place.ACTED,
        "platform": Place.ACTED,
        "backend": Place.ACTED,
        "runtime": Place.IGNORED,
        "default_model_filename": Place.ACTED,
        "cc_model_filenames": Place.IGNORED,
        "version_policy": Place.ACTED,
        "max_batch_size": Place.ACTED,
        "input": Place.INSIDE,
        "input.name": Place.ACTED,
        "input.data_type": Place.ACTED,
        "input.dims": Place.ACTED,
        "input.format": Place.ACTED,
        "input.reshape": Place.ACTED,
        "input.is_shape_tensor": Place.REFUSED,
        "input.allow_ragged_batch": Place.REFUSED,
        "input.optional": Place.ACTED,
        "input.is_non_linear_format_io": Place.IGNORED,
        "output": Place.INSIDE,
        "output.name": Place.ACTED,
        "output.data_type": Place.ACTED,
        "output.dims": Place.ACTED,
        "output.reshape": Place.ACTED,
        "output.label_filename": Place.ACTED,
        "output.is_shape_tensor": Place.REFUSED,
        "output.is_non_linear_format_io": Place.IGNORED,
        "batch_input": Place.REFUSED,
        "batch_output": Place.REFUSED,
        "dynamic_batching": Place.INSIDE,
        "dynamic_batching.preferred_batch_size": Place.ACTED,
        "dynamic_batching.max_queue_delay_microseconds": Place.ACTED,
        "dynamic_batching.preserve_ordering": Place.ACTED,
        "dynamic_batching.priority_levels": Place.ACTED,
        "dynamic_batching.default_priority_level": Place.ACTED,
        "dynamic_batching.default_queue_policy": Place.INSIDE,
        "dynamic_batching.default_queue_policy.timeout_action": Place.ACTED,
        "dynamic_batching.default_queue_policy.default_timeout_microseconds": Place.ACTED,
        "dynamic_batching.default_queue_policy.allow_timeout_override": Place.ACTED,
        "dynamic_batching.default_queue_policy.max_queue_size": Place.ACTED,
        "dynamic_batching.priority_queue_policy": Place.ACTED,
        "sequence_batching": Place.REFUSED,
        "ensemble_scheduling": Place.REFUSED,
        "instance_group": Place.INSIDE,
        "instance_group.name": Place.ACTED,
        "instance_group.kind": Place.ACTED,
        "instance_group.count": Place.ACTED,
        "instance_group.rate_limiter": Place.IGNORED,
        "instance_group.gpus": Place.ACTED,
        "instance_group.secondary_devices": Place.IGNORED,
        "instance_group.profile": Place.IGNORED,
        "instance_group.passive": Place.IGNORED,
        "instance_group.host_policy": Place.IGNORED,
        "optimization": Place.INSIDE,
        "optimization.graph": Place.INSIDE,
        "optimization.graph.level": Place.ACTED,
        "optimization.priority": Place.IGNORED,
        "optimization.cuda": Place.IGNORED,
        "optimization.execution_accelerators": Place.ACTED,
        "optimization.input_pinned_memory": Place.IGNORED,
        "optimization.output_pinned_memory": Place.IGNORED,
        "optimization.gather_kernel_buffer_threshold": Place.IGNORED,
        "optimization.eager_batching": Place.IGNORED,
        "model_transaction_policy": Place.INSIDE,
        "model_transaction_policy.decoupled": Place.REFUSED,
        "response_cache": Place.INSIDE,
        "response_cache.enable": Place.IGNORED,
        "model_warmup": Place.ACTED,
        "parameters": Place.ACTED,
        "model_operations": Place.IGNORED,
        # An agent may decrypt, check or rewrite the model's files before they are loaded.
        "model_repository_agents": Place.REFUSED,
        "metric_tags": Place.IGNORED,
        "model_metrics": Place.IGNORED,
    }
)


def placed(message: Message) -> dict[str, Place]:
    """The place of every field that the message sets, by path, in the order met and each once."""
    return dict(_walk(message, ""))


def _walk(message: Message, prefix: str) -> Iterator[tuple[str, Place]]:
    for field, value in message.ListFields():
        path = f"{prefix}{field.name}"
        place = FIELDS[path]
        yield path, place
        if place is Place.INSIDE:
            for inner in [value] if isinstance(value, Message) else value:
                yield from _walk(inner, f"{path}.")
