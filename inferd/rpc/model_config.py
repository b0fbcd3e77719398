"""A loaded model as the protocol's ModelConfig message."""

from __future__ import annotations

from typing import Any, Final

from inferd.loading import Loaded
from inferd.proto import model_config_pb2 as pb
from inferd.repository import TensorDecl

PLATFORM: Final = "onnxruntime_onnx"
BACKEND: Final = "onnxruntime"


def describe(loaded: Loaded) -> Any:
    """config.pbtxt, if there is one, completed by what the model file says and by what was found at load.

    As clients expect it, dims are without the batch dimension where max_batch_size is above 0.
    """
    config = pb.ModelConfig()
    if loaded.decl.config is not None:
        config.CopyFrom(loaded.decl.config)
    config.name = loaded.decl.name
    config.platform, config.backend = PLATFORM, BACKEND
    config.default_model_filename = loaded.decl.model_file
    batched = loaded.signature.batched
    config.max_batch_size = loaded.signature.max_rows if batched else 0
    if not config.HasField("version_policy"):
        config.version_policy.latest.num_versions = 1
    for tensors, decls in ((config.input, loaded.decl.inputs), (config.output, loaded.decl.outputs)):
        said = {tensor.name: tensor for tensor in tensors}
        completed = [_completed(said.get(decl.name) or tensors.add(name=decl.name), decl) for decl in decls]
        del tensors[:]
        tensors.extend(completed)
    if batched and not config.HasField("dynamic_batching"):
        config.dynamic_batching.SetInParent()
    if not config.instance_group:
        for session in loaded.sessions:
            count = sum(slot.session is session for slot in loaded.slots)
            number = session.device.gpu_number
            kind = pb.ModelInstanceGroup.KIND_CPU if number is None else pb.ModelInstanceGroup.KIND_GPU
            gpus = () if number is None else (number,)
            config.instance_group.add(name=loaded.decl.name, count=count, kind=kind, gpus=gpus)
    return config


def shape_of(decl: TensorDecl, *, batched: bool) -> tuple[int, ...]:
    """The shape of a tensor on the wire, -1 for any length: with the batch dimension, if there is one."""
    return (-1, *decl.dims) if batched else decl.dims


def _completed(tensor: Any, decl: TensorDecl) -> Any:
    """A copy of what the file says of a tensor, with what it leaves out."""
    made = type(tensor)()
    made.CopyFrom(tensor)
    made.data_type = pb.DataType.Value(f"TYPE_{'STRING' if decl.datatype == 'BYTES' else decl.datatype}")
    made.dims[:] = decl.dims
    if decl.reshape is not None:
        made.reshape.shape[:] = decl.reshape
        made.reshape.SetInParent()
    return made
