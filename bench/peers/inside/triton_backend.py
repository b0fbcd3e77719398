"""Runs inside Triton's Python backend: an ONNX Runtime session behind Triton's dynamic batches."""

import json
import os
import sys
from pathlib import Path

# The backend's Python reads no PYTHONPATH.
sys.path.insert(0, os.environ["BENCH_SITE"])

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    """One instance of a model."""

    def initialize(self, args):
        """Open the model file of the version that Triton names."""
        file = json.loads(args["model_config"]).get("default_model_filename") or "model.onnx"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["BENCH_THREADS"])
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = Path(args["model_repository"], args["model_version"], file)
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.names = [output.name for output in self.session.get_outputs()]

    def execute(self, requests):
        """One run for all of them: Triton batches only requests of one shape."""
        feeds = [{tensor.name(): tensor.as_numpy() for tensor in request.inputs()} for request in requests]
        if len(feeds) == 1:
            return [self.answer(self.session.run(self.names, feeds[0]))]
        together = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
        ends = np.cumsum([len(next(iter(feed.values()))) for feed in feeds])[:-1]
        parts = [np.split(values, ends) for values in self.session.run(self.names, together)]
        return [self.answer(values) for values in zip(*parts, strict=True)]

    def answer(self, arrays):
        """The outputs of one request."""
        named = zip(self.names, arrays, strict=True)
        return triton.InferenceResponse([triton.Tensor(name, values) for name, values in named])
