"""One model of a repository that changes, and a client that looks at it, asks for it, loads it and unloads it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnx
import onnx_models as models

from inferd.proto import inference_pb2 as pb
from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from .calls import arrays, request, rows
from .process import POLL_S, Server

READY, UNAVAILABLE, LOADING, UNLOADING = "READY", "UNAVAILABLE", "LOADING", "UNLOADING"
WAIT_S = 30.0
NOT_A_MODEL = b"these bytes are no model"


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that a server does in its own time."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(POLL_S)


@dataclass
class Controlled:
    """A model by name. What it multiplies by tells its versions, and what they held, apart."""

    server: Server
    stub: GRPCInferenceServiceStub
    repository: Path
    name: str

    @classmethod
    def named(cls, server: Server, stub: GRPCInferenceServiceStub, repository: Path, test: str) -> Self:
        """The model of one test, whose version 1 doubles."""
        made = cls(server, stub, repository, re.sub(r"\W+", "_", test)[-80:].lstrip("_"))
        made.write(2.0)
        return made

    # --- in the repository ----------------------------------------------------------------------------

    def file(self, version: int = 1) -> Path:
        """The file of one version."""
        return self.repository / self.name / str(version) / "model.onnx"

    def write(self, factor: float, version: int = 1) -> None:
        """Put a version there, or other contents in its place, at once."""
        self.put(models.scale(factor).SerializeToString(), version)

    def put(self, content: bytes, version: int = 1) -> None:
        """The same for any bytes."""
        self.file(version).parent.mkdir(parents=True, exist_ok=True)
        self.file(version).write_bytes(content)

    def configure(self, config: str) -> None:
        """Write its config.pbtxt."""
        (self.repository / self.name).mkdir(exist_ok=True)
        (self.repository / self.name / "config.pbtxt").write_text(config)

    # --- on the server ----------------------------------------------------------------------------------

    def load(self, parameters: Mapping[str, Any] | None = None) -> Any:
        """RepositoryModelLoad; parameters have their kind by the type of their values."""
        return self.stub.RepositoryModelLoad(self.load_request(parameters or {}), timeout=WAIT_S)

    def load_request(self, parameters: Mapping[str, Any]) -> Any:
        """The message of it."""
        message = pb.RepositoryModelLoadRequest(model_name=self.name)
        for key, value in parameters.items():
            kind = {bytes: "bytes_param", str: "string_param", bool: "bool_param", int: "int64_param"}[type(value)]
            setattr(message.parameters[key], kind, value)
        return message

    def unload(self) -> Any:
        """RepositoryModelUnload."""
        return self.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name=self.name), timeout=WAIT_S)

    def index(self, *, ready: bool = False) -> dict[str, tuple[str, str]]:
        """What RepositoryIndex lists of it: state and reason by version."""
        answer = self.stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=ready), timeout=WAIT_S)
        return {one.version: (one.state, one.reason) for one in answer.models if one.name == self.name}

    def states(self) -> dict[str, str]:
        """The same without the reasons."""
        return {version: state for version, (state, _) in self.index().items()}

    def answer(self, version: str = "") -> tuple[str, float]:
        """Which version answers, and what it multiplies by."""
        x = rows(1)
        answer = self.stub.ModelInfer(request(self.name, version=version, x=x), timeout=WAIT_S)
        found = np.unique(np.round(arrays(answer)["y"] / x, 4))
        assert len(found) == 1, found
        return answer.model_version, float(found[0])


def bytes_of(model: onnx.ModelProto) -> bytes:
    """A model file's content."""
    content: bytes = model.SerializeToString()
    return content
