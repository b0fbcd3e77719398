"""A loaded model as the protocol's ModelConfig message."""

from __future__ import annotations

from typing import Any, Final

from inferd.loading import Loaded
from inferd.proto import model_config_pb2 as pb
from inferd.session import TensorInfo

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
    for tensors, infos in ((config.input, loaded.session.inputs), (config.output, loaded.session.outputs)):
        del tensors[:]
        for info in infos:
            tensors.add(name=info.name, data_type=_data_type(info), dims=info.shape[1 if batched else 0 :])
    if batched and not config.HasField("dynamic_batching"):
        config.dynamic_batching.SetInParent()
    if not config.instance_group:
        config.instance_group.add(name=loaded.decl.name, count=len(loaded.slots), kind=pb.ModelInstanceGroup.KIND_CPU)
    return config


def _data_type(info: TensorInfo) -> int:
    name = "STRING" if info.datatype == "BYTES" else info.datatype
    return int(pb.DataType.Value(f"TYPE_{name}"))
