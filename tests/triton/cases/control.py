"""The model repository in explicit mode: what is there, and loading and unloading it. Each case leaves it as it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import onnx_models as models
from serve.calls import request, rows

from inferd.proto import inference_pb2 as pb

from ..answers import Answer, Call, codes
from .case import Case, Difference

# In the repository, and not loaded at the start.
SPARE = "spare"
# Not in the repository.
SENT = "sent"
FILE = models.scale().SerializeToString()
CONFIG = json.dumps(
    {
        "platform": "onnxruntime_onnx",
        "max_batch_size": 2,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}],
        "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [4]}],
        "instance_group": [{"kind": "KIND_CPU", "count": 1}],
    }
)


def load(model: str, repository: str = "", **parameters: Any) -> Call:
    return _control("RepositoryModelLoad", model, repository, parameters)


def unload(model: str, repository: str = "", **parameters: Any) -> Call:
    return _control("RepositoryModelUnload", model, repository, parameters)


def _control(method: str, model: str, repository: str, parameters: dict[str, Any]) -> Call:
    message = getattr(pb, f"{method}Request")(model_name=model, repository_name=repository)
    kinds = {bool: "bool_param", int: "int64_param", str: "string_param", bytes: "bytes_param"}
    for name, value in parameters.items():
        setattr(message.parameters[name], kinds[type(value)], value)
    return Call(method, message)


def index(**more: Any) -> Call:
    return Call("RepositoryIndex", pb.RepositoryIndexRequest(**more))


def ask(model: str, count: int = 1, until: Callable[[Answer], bool] | None = None) -> Call:
    return Call("ModelInfer", request(model, x=rows(1, count)), until=until)


def is_gone(answer: Answer) -> bool:
    """That the model is unloaded."""
    return answer.code == "NOT_FOUND"


def file(version: int, data: bytes) -> dict[str, bytes]:
    return {f"file:{version}/model.onnx": data}


def state_of_the_spare(answers: Sequence[Answer]) -> str:
    [state] = [one.state for one in answers[0].messages[0].models if one.name == SPARE]
    return state or "none"


NEVER_LOADED = Difference(
    what="the state in RepositoryIndex of a model that was never loaded",
    triton="none",
    inferd="UNAVAILABLE",
    why="The protocol has that word for it.",
    seen=state_of_the_spare,
)
NO_SUCH_MODEL = Difference(
    what="RepositoryModelLoad of a model that the repository does not have",
    triton="INTERNAL",
    inferd="NOT_FOUND",
    why="The name is wrong, not the server.",
)
BAD_LOAD = Difference(
    what="RepositoryModelLoad with a config that is no JSON, or with files and no config",
    triton="INTERNAL",
    inferd="INVALID_ARGUMENT",
    why="The request is wrong, not the server.",
)
BAD_UNLOAD = Difference(
    what="RepositoryModelUnload with a parameter that nobody knows",
    triton="OK",
    inferd="INVALID_ARGUMENT",
    why="As for a load, where both refuse it.",
)
BAD_FILE = Difference(
    what="RepositoryModelLoad of a file that is no model, then a request for it",
    triton="INVALID_ARGUMENT, NOT_FOUND, OK",
    inferd="FAILED_PRECONDITION, FAILED_PRECONDITION, OK",
    why="The request is right and the model is here; no retry helps until somebody mends the file.",
)
BAD_NEW_FILE = Difference(
    what="a load of a file that is no model where one serves: the load, then a request (the old one answers)",
    triton="INVALID_ARGUMENT, OK",
    inferd="FAILED_PRECONDITION, OK",
    why="As above. What served before serves on.",
    seen=lambda answers: codes(answers[1:3]),
)
FORGOTTEN = Difference(
    what="4 rows for a model that was loaded with max_batch_size 2 in `config`, and once more without",
    triton="INVALID_ARGUMENT",
    inferd="OK",
    why="To Triton unchanged files are nothing to do. A load without `config` means what the repository has.",
    seen=lambda answers: answers[3].code,
)

CASES = (
    Case("what is here", (index(),)),
    Case("what is here and was never loaded", (index(),), NEVER_LOADED),
    Case("what is ready", (index(ready=True),)),
    Case("another repository", (index(repository_name="other"),)),
    Case("a load from another repository", (load(SPARE, "other"),)),
    Case("an unload from another repository", (unload(SPARE, "other"),)),
    Case("an unknown model to load", (load("nothing"),), NO_SUCH_MODEL),
    Case("no name to load", (load(""),), NO_SUCH_MODEL),
    Case("an unknown model to unload", (unload("nothing"),)),
    Case("no name to unload", (unload(""),)),
    Case("a model to unload that is not loaded", (unload(SPARE),)),
    Case("an unknown parameter of a load", (load(SPARE, anything="1"),)),
    Case("an unknown parameter of an unload", (unload(SPARE, anything="1"),), BAD_UNLOAD),
    Case("unload_dependents", (unload(SPARE, unload_dependents=True),)),
    Case("unload_dependents as a number", (unload(SPARE, unload_dependents=1),)),
    Case("a config that is no text", (load(SPARE, config=1),)),
    Case("a config that is no JSON", (load(SPARE, config="max_batch_size: 2"),), BAD_LOAD),
    Case("a file that is no bytes", (load(SPARE, config=CONFIG, **{"file:1/model.onnx": "text"}),)),
    Case("a file without a config", (load(SPARE, **file(1, FILE)),), BAD_LOAD),
    Case("a model that is not loaded yet", (ask(SPARE),)),
    Case(
        "a model that is loaded and unloaded",
        (load(SPARE), ask(SPARE), unload(SPARE), ask(SPARE, until=is_gone), unload(SPARE)),
    ),
    Case("a model that is loaded twice", (load(SPARE), load(SPARE), ask(SPARE), unload(SPARE))),
    Case(
        "a config that overrules the file's",
        (load(SPARE, config=CONFIG), ask(SPARE, 2), ask(SPARE, 3), unload(SPARE)),
    ),
    Case(
        "a config that overruled the file's",
        (load(SPARE, config=CONFIG), ask(SPARE, 2), load(SPARE), ask(SPARE, 4), unload(SPARE)),
        FORGOTTEN,
    ),
    Case(
        "files that are sent",
        (load(SENT, config=CONFIG, **file(7, FILE)), ask(SENT), unload(SENT), ask(SENT, until=is_gone)),
    ),
    Case(
        "files that do not load", (load(SENT, config=CONFIG, **file(7, b"no model")), ask(SENT), unload(SENT)), BAD_FILE
    ),
    Case(
        "a failed load of a model that serves",
        (load(SPARE), load(SPARE, config=CONFIG, **file(2, b"no model")), ask(SPARE), unload(SPARE)),
        BAD_NEW_FILE,
    ),
)
