"""Runs inside Triton's Python backend, as the backend "onnxruntime" that its wheel has not: ONNX files, on the CPU.

What it does is what Triton's own backend does with a model: completes its configuration from the file, and answers
the outputs that were asked for. Names, types, shapes, batches, ids and codes are Triton's own affair.
"""

import json
import os
import sys
from pathlib import Path

# The backend's Python reads no PYTHONPATH.
sys.path.insert(0, os.environ["ORACLE_SITE"])

import numpy as np
import triton_python_backend_utils as triton

TYPES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8",
    "int16": "INT16", "int32": "INT32", "int64": "INT64", "float16": "FP16", "float": "FP32", "double": "FP64",
    "string": "STRING", "bfloat16": "BF16",
}  # fmt: skip
DEFAULT_MAX_BATCH_SIZE = 4


def opened(path):
    # Not above: this file runs once more for each model, to complete its configuration, and mostly has nothing to do.
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def described(info, batched):
    """A tensor as config.pbtxt has it: a scalar has one element, and the batch dimension is left out."""
    dims = [size if isinstance(size, int) else -1 for size in info.shape]
    return {
        "name": info.name,
        "data_type": "TYPE_" + TYPES[info.type[len("tensor(") : -1]],
        "dims": (dims[1:] if batched else dims) or [1],
    }


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        known = config.as_dict()
        folder = Path(os.environ["ORACLE_REPOSITORY"], known["name"])
        if known["input"] and known["output"]:
            return config
        newest = max((path for path in folder.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
        session = opened(newest / (known["default_model_filename"] or "model.onnx"))
        tensors = [*session.get_inputs(), *session.get_outputs()]
        if not (folder / "config.pbtxt").exists() and all(
            one.shape and isinstance(one.shape[0], str) for one in tensors
        ):
            config.set_max_batch_size(DEFAULT_MAX_BATCH_SIZE)
            config.set_dynamic_batching()
        batched = config.as_dict()["max_batch_size"] > 0
        for one in session.get_inputs():
            config.add_input(described(one, batched))
        for one in session.get_outputs():
            config.add_output(described(one, batched))
        return config

    def initialize(self, args):
        config = json.loads(args["model_config"])
        name = config.get("default_model_filename") or "model.onnx"
        self.session = opened(Path(args["model_repository"], args["model_version"], name))
        self.batched = config["max_batch_size"] > 0
        self.outputs = [one.name for one in self.session.get_outputs()]
        self.inputs = {
            one.name: one for one in (*self.session.get_inputs(), *self.session.get_overridable_initializers())
        }

    def execute(self, requests):
        feeds = [
            {one.name(): self.taken(one.name(), one.as_numpy()) for one in request.inputs()} for request in requests
        ]
        asked = [set(request.requested_output_names()) for request in requests]
        shared = self.shared(feeds) if len(feeds) > 1 and self.batched else None
        return [
            self.answer(names, shared[index] if shared else None, feed)
            for index, (names, feed) in enumerate(zip(asked, feeds, strict=True))
        ]

    def taken(self, name, array):
        if array.dtype == object:
            # ONNX Runtime takes text; bytes that are none come back as they were.
            array = np.array([one.decode("utf-8", "surrogateescape") for one in array.flat], object).reshape(
                array.shape
            )
        return array if self.inputs[name].shape else array.reshape(())

    def shared(self, feeds):
        """The outputs of each request, from one run; None if that fails, so that each shows its own failure."""
        ends = np.cumsum([len(next(iter(feed.values()))) for feed in feeds])[:-1]
        try:
            together = self.session.run(
                None, {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
            )
        except Exception:
            return None
        return list(zip(*(np.split(values, ends) for values in together), strict=True))

    def answer(self, asked, values, feed):
        try:
            values = values or self.session.run(None, feed)
        except Exception as error:
            return triton.InferenceResponse([], error=triton.TritonError(str(error)))
        tensors = [
            triton.Tensor(name, given(one)) for name, one in zip(self.outputs, values, strict=True) if name in asked
        ]
        return triton.InferenceResponse(tensors)


def given(array):
    array = np.asarray(array)
    if array.dtype == object:
        array = np.array([one.encode("utf-8", "surrogateescape") for one in array.flat], object).reshape(array.shape)
    return np.ascontiguousarray(array)
