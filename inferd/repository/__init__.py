"""The model repository on disk: names, versions, config.pbtxt. Knows files; knows nothing of ONNX Runtime."""

from __future__ import annotations

from inferd.repository.batching import BatchingDecl, QueuePolicy
from inferd.repository.config import ModelDecl, declare, parse
from inferd.repository.instances import GroupDecl, InstancesDecl
from inferd.repository.overrides import Override
from inferd.repository.runtime import RuntimeDecl
from inferd.repository.scan import BrokenModel, ModelDir, Reader, Repository, VersionDir, digest
from inferd.repository.tensorrt import CACHES as TENSORRT_CACHES
from inferd.repository.tensors import TensorDecl
from inferd.repository.warmup import SampleTensor, WarmupSample

__all__ = [
    "TENSORRT_CACHES",
    "BatchingDecl",
    "BrokenModel",
    "GroupDecl",
    "InstancesDecl",
    "ModelDecl",
    "ModelDir",
    "Override",
    "QueuePolicy",
    "Reader",
    "Repository",
    "RuntimeDecl",
    "SampleTensor",
    "TensorDecl",
    "VersionDir",
    "WarmupSample",
    "declare",
    "digest",
    "parse",
]
