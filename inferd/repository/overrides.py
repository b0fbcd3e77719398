"""A model as a client sends it with RepositoryModelLoad: a config in place of config.pbtxt, and files.

Names of parameters: triton-inference-server/server, docs/protocol/extension_model_repository.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from google.protobuf import json_format

from inferd.errors import InvalidRequest
from inferd.proto.model_config_pb2 import ModelConfig
from inferd.repository.scan import BrokenModel, ModelDir, Reader

FILE_PREFIX = "file:"
# A version folder and the name of a file in it: nothing that could lead elsewhere.
FILE = re.compile(r"[1-9][0-9]{0,17}/[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}")


@dataclass(frozen=True, slots=True)
class Override:
    """What a load is asked to take in place of what is on disk. `files` are by version/name."""

    config: ModelConfig | None = None
    files: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        """Raises InvalidRequest for files without a config, as they come without a config.pbtxt."""
        if self.files and self.config is None:
            raise InvalidRequest("files are given without a config; give the parameter 'config' too")

    def find(self, reader: Reader, name: str, folder: Path) -> ModelDir | BrokenModel | None:
        """The model as it is to be loaded; files that were sent are written into `folder`. Blocks."""
        if not self.files:
            return reader.find(name, self.config)
        for place, content in self.files.items():
            path = Path(folder, name, place)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return Reader(folder).find(name, self.config)


def config_of(text: str, name: str) -> ModelConfig:
    """Read a config that is JSON. Raises InvalidRequest with what is wrong in it."""
    try:
        config: ModelConfig = json_format.Parse(text, ModelConfig())
    except (json_format.ParseError, RecursionError) as exc:
        raise InvalidRequest(f"the parameter 'config' of model '{name}' is no ModelConfig in JSON: {exc}") from None
    return config


def file_place(key: str) -> str:
    """The version/name that a parameter's key file:version/name asks for. Raises InvalidRequest."""
    place = key.removeprefix(FILE_PREFIX)
    if not FILE.fullmatch(place):
        raise InvalidRequest(f"the parameter {key[:80]!r} must be {FILE_PREFIX}VERSION/NAME, such as file:1/model.onnx")
    return place
