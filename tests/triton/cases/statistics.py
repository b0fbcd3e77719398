"""Statistics of models: what is counted. How long anything took is not compared."""

from __future__ import annotations

from collections.abc import Sequence

from serve.calls import request, rows

from inferd.proto import inference_pb2 as pb

from ..answers import Answer, Call
from .case import Case, Difference
from .control import ask, load, unload
from .refusals import NO_NUMBER

# Loaded by these cases alone.
COUNTED, WRONGED = "counted", "wronged"


def statistics(name: str = "", version: str = "", *, runs: int = 0) -> Call:
    """What is counted, once it has come to so many requests, each a run: Triton counts one after it has answered it."""

    def is_counted(answer: Answer) -> bool:
        [model] = answer.messages[0].model_stats
        return min(model.execution_count, model.inference_stats.success.count) >= runs

    asked = pb.ModelStatisticsRequest(name=name, version=version)
    return Call("ModelStatistics", asked, until=is_counted if runs else None)


def failures(answers: Sequence[Answer]) -> str:
    """How many requests the last statistics say failed."""
    counted = [
        one.messages[0] for one in answers if one.messages and one.messages[0].DESCRIPTOR.name.startswith("ModelStat")
    ]
    return str(counted[-1].model_stats[0].inference_stats.fail.count)


REFUSED_COUNT = Difference(
    what="`fail` in ModelStatistics after two requests with wrong tensors",
    triton="0",
    inferd="2",
    why="Triton counts what was queued. Who looks at failures wants to see those too.",
    seen=failures,
)
UNKNOWN = Difference(
    what="ModelStatistics of a model or version that is not here",
    triton="INVALID_ARGUMENT",
    inferd="NOT_FOUND",
    why="As everywhere else.",
)

CASES = (
    Case("a model that nobody asked", (load(COUNTED), statistics(COUNTED), unload(COUNTED))),
    Case(
        "requests of one and of two rows",
        (
            *(load(COUNTED), ask(COUNTED), ask(COUNTED, 2), ask(COUNTED, 2)),
            *(statistics(COUNTED, runs=3), unload(COUNTED)),
        ),
    ),
    Case(
        "requests that are refused",
        (
            *(load(WRONGED), ask(WRONGED, 5), Call("ModelInfer", request(WRONGED, x=rows(1), outputs=["nothing"]))),
            *(statistics(WRONGED, "1"), unload(WRONGED)),
        ),
        REFUSED_COUNT,
    ),
    Case("an unknown model", (statistics("nothing"),), UNKNOWN),
    Case("an unknown version", (statistics("scale", "2"),), UNKNOWN),
    Case("a version that is no number", (statistics("scale", "newest"),), NO_NUMBER),
)
