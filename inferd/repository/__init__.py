"""The model repository on disk: names, versions, config.pbtxt. Knows files; knows nothing of ONNX Runtime."""

from __future__ import annotations

from inferd.repository.config import BatchingDecl, ModelDecl, TensorDecl, declare, parse
from inferd.repository.overrides import Override
from inferd.repository.scan import BrokenModel, ModelDir, Reader, Repository, VersionDir, digest

__all__ = [
    "BatchingDecl",
    "BrokenModel",
    "ModelDecl",
    "ModelDir",
    "Override",
    "Reader",
    "Repository",
    "TensorDecl",
    "VersionDir",
    "declare",
    "digest",
    "parse",
]
