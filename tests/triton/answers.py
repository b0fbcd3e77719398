"""Asking a server a question of several calls, and what of its answers is compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import text_format
from serve.process import POLL_S

from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

WAIT_S = 30.0


@dataclass(frozen=True)
class Call:
    """One call: the method's name and what is sent. A list is the requests of a stream.

    With `until` it is made again until that holds of its answer: the answer to something that takes its time.
    """

    method: str
    request: Any
    metadata: tuple[tuple[str, str], ...] = ()
    until: Callable[[Answer], bool] | None = None


@dataclass(frozen=True)
class Answer:
    """How a call ended: the code's name, and the messages that came before."""

    code: str
    messages: tuple[Any, ...] = ()


def ask(channel: grpc.Channel, calls: Sequence[Call], *, at_once: bool = False) -> list[Answer]:
    """Make the calls, one after the other or all at once."""
    stub = GRPCInferenceServiceStub(channel)
    if at_once:
        begun = [getattr(stub, one.method).future(one.request, timeout=WAIT_S) for one in calls]
        return [_ended(one.result) for one in begun]
    return [_answer(getattr(stub, one.method), one) for one in calls]


def _answer(method: Any, call: Call) -> Answer:
    end = time.monotonic() + WAIT_S
    answer = _made(method, call)
    while call.until is not None and not call.until(answer) and time.monotonic() < end:
        time.sleep(POLL_S)
        answer = _made(method, call)
    return answer


def _made(method: Any, call: Call) -> Answer:
    if not isinstance(call.request, list):
        return _ended(lambda: method(call.request, timeout=WAIT_S, metadata=call.metadata))
    messages: list[Any] = []
    stream = method(iter(call.request), timeout=WAIT_S, metadata=call.metadata)
    code = _ended(lambda: messages.extend(stream)).code
    return Answer(code, tuple(messages))


def _ended(call: Callable[[], Any]) -> Answer:
    try:
        return Answer("OK", (call(),))
    except grpc.RpcError as error:
        return Answer(error.code().name)


def compared(answers: Sequence[Answer]) -> list[str]:
    """The answers as text, without what two servers cannot have in common: words for people, and times."""
    return ["\n".join([one.code, *map(_text, one.messages)]) for one in answers]


def codes(answers: Sequence[Answer]) -> str:
    """How the calls ended: what is seen of answers if nothing else is said."""
    return ", ".join(one.code for one in answers)


def _text(message: Any) -> str:
    kept = type(message)()
    kept.CopyFrom(message)
    change = CHANGES.get(kept.DESCRIPTOR.name)
    if change is not None:
        change(kept)
    return text_format.MessageToString(kept)


def _stream(message: Any) -> None:
    # What else comes with an error is a difference that cases/streams.py looks at by itself.
    if message.error_message:
        message.error_message = "some text"
        message.infer_response.ClearField("parameters")
        message.infer_response.ClearField("model_name")


def _index(message: Any) -> None:
    # What each says of a model that is not loaded depends on whether it ever was.
    for model in message.models:
        if model.state != "READY":
            model.version = model.state = model.reason = ""


def _config(message: Any) -> None:
    # cases/metadata.py looks at these by themselves. What is left is what clients read.
    if not message.HasField("config"):
        return
    config = message.config
    for name in ("version_policy", "optimization", "runtime", "dynamic_batching"):
        config.ClearField(name)
    for group in config.instance_group:
        group.name = ""
    # 0 may be sent or left out.
    config.max_batch_size = config.max_batch_size


def _statistics(message: Any) -> None:
    for model in message.model_stats:
        model.last_inference = min(model.last_inference, 1)
        durations = [getattr(model.inference_stats, field.name) for field in model.inference_stats.DESCRIPTOR.fields]
        for batch in model.batch_stats:
            durations += [batch.compute_input, batch.compute_infer, batch.compute_output]
        for duration in durations:
            duration.ns = min(duration.ns, 1)


CHANGES: dict[str, Callable[[Any], None]] = {
    "ModelConfigResponse": _config,
    "ModelStreamInferResponse": _stream,
    "RepositoryIndexResponse": _index,
    "ModelStatisticsResponse": _statistics,
}
