"""What is here and how it is: health, metadata, configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inferd.proto import inference_pb2 as pb

from ..answers import Answer, Call, codes
from .case import Case, Difference
from .refusals import NO_NUMBER

NAMES = ("scale", "two_by_two", "types", "plain", "any_rows", "versioned")
QUESTIONS = {
    "ModelReady": pb.ModelReadyRequest,
    "ModelMetadata": pb.ModelMetadataRequest,
    "ModelConfig": pb.ModelConfigRequest,
}
UNKNOWN = {"an unknown model": ("nothing", ""), "no name": ("", ""), "an unknown version": ("scale", "2")}
NO_VERSIONS = {"a version that is no number": ("scale", "newest"), "a negative version": ("scale", "-1")}


def call(method: str, name: str, version: str = "") -> tuple[Call, ...]:
    return (Call(method, QUESTIONS[method](name=name, version=version)),)


def told(answers: Sequence[Answer]) -> Any:
    """The one message of the one answer."""
    [answer] = answers
    [message] = answer.messages
    return message


def ready(answers: Sequence[Answer]) -> str:
    return f"ready: {str(told(answers).ready).lower()}" if answers[0].messages else codes(answers)


NOT_HERE = Difference(
    what="ModelReady of a model or version that is not here",
    triton="ready: false",
    inferd="NOT_FOUND",
    why="So that a wrong name is not taken for a model that still loads. Newer Tritons answer the same.",
    seen=ready,
)
ALL_VERSIONS = Difference(
    what="versions in ModelMetadata, asked for version 1 of a model that serves 1 and 3",
    triton="1",
    inferd="1, 3",
    why="The protocol means the versions that may be asked for.",
    seen=lambda answers: ", ".join(told(answers).versions),
)
SCALAR_SHAPE = Difference(
    what="the shape of a scalar in ModelMetadata",
    triton="[1]",
    inferd="[]",
    why="As the model has it.",
    seen=lambda answers: str(list(told(answers).inputs[0].shape)),
)
NAME = Difference(
    what="name in ServerMetadata",
    triton="triton",
    inferd="inferd",
    why="It is not Triton.",
    seen=lambda answers: str(told(answers).name),
)
EXTENSIONS = Difference(
    what="extensions in ServerMetadata",
    triton="binary_tensor_data, classification, cuda_shared_memory, logging, model_configuration, model_repository, "
    "model_repository(unload_dependents), parameters, schedule_policy, sequence, statistics, system_shared_memory, "
    "trace",
    inferd="classification, logging, model_configuration, model_repository, model_repository(unload_dependents), "
    "schedule_policy, statistics, system_shared_memory",
    why="Those that work. `binary_tensor_data` is about HTTP.",
    seen=lambda answers: ", ".join(sorted(told(answers).extensions)),
)
GUESSED_ROWS = Difference(
    what="max_batch_size of a model without config.pbtxt whose rows are independent",
    triton="4",
    inferd="64",
    why="The setting `batching.max_batch_size`. Whether rows may share a run is tried at load, how many pay is timed.",
    seen=lambda answers: str(told(answers).config.max_batch_size),
)
SCHEDULER = Difference(
    what="the scheduler in ModelConfig, where config.pbtxt has max_batch_size but no dynamic_batching",
    triton="none",
    inferd="dynamic_batching",
    why="Requests share runs wherever max_batch_size lets them, without being told to.",
    seen=lambda answers: told(answers).config.WhichOneof("scheduling_choice") or "none",
)
INNARDS = Difference(
    what="optimization and runtime in ModelConfig",
    triton="present",
    inferd="absent",
    why="They tell of pinned memory and of libraries that are Triton's own.",
    seen=lambda answers: (
        "present" if told(answers).config.HasField("optimization") and told(answers).config.runtime else "absent"
    ),
)

CASES = (
    Case("ServerLive", (Call("ServerLive", pb.ServerLiveRequest()),)),
    Case("ServerReady", (Call("ServerReady", pb.ServerReadyRequest()),)),
    Case("the server's name", (Call("ServerMetadata", pb.ServerMetadataRequest()),), NAME),
    Case("the server's extensions", (Call("ServerMetadata", pb.ServerMetadataRequest()),), EXTENSIONS),
    *(Case(f"{method} of {name}", call(method, name)) for method in QUESTIONS for name in NAMES),
    *(Case(f"{method} of a version", call(method, "versioned", "1")) for method in ("ModelReady", "ModelConfig")),
    *(Case(f"ModelReady of {what}", call("ModelReady", *names), NOT_HERE) for what, names in UNKNOWN.items()),
    *(
        Case(f"{method} of {what}", call(method, *names))
        for method in ("ModelMetadata", "ModelConfig")
        for what, names in UNKNOWN.items()
    ),
    *(
        Case(f"{method} of {what}", call(method, *names), NO_NUMBER)
        for method in QUESTIONS
        for what, names in NO_VERSIONS.items()
    ),
    Case("ModelMetadata of a version", call("ModelMetadata", "versioned", "1"), ALL_VERSIONS),
    Case("ModelMetadata of a scalar", call("ModelMetadata", "scalar"), SCALAR_SHAPE),
    Case("ModelConfig without a file", call("ModelConfig", "no_config"), GUESSED_ROWS),
    Case("ModelConfig without a scheduler", call("ModelConfig", "scale"), SCHEDULER),
    Case("ModelConfig about the server itself", call("ModelConfig", "scale"), INNARDS),
)
