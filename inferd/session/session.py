"""A loaded model."""

from __future__ import annotations

from pathlib import Path

from inferd.device import Device
from inferd.errors import ModelFailed
from inferd.session.failures import one_line
from inferd.session.options import SessionOptions, ort_options, run_options
from inferd.session.runtime import ort
from inferd.session.tensors import BFLOAT16, STRING, tensor_info


class Session:
    """One loaded model. Runs may come from several threads at once; the weights are shared."""

    def __init__(self, path: Path, options: SessionOptions, device: Device) -> None:
        """Load the file; ModelFailed with what the runtime said if that is not possible."""
        try:
            self.ort = ort.InferenceSession(str(path), ort_options(options), providers=device.providers())
        except Exception as failure:  # the binding raises RuntimeError, ValueError and classes of its own
            raise ModelFailed(f"{path}: ONNX Runtime cannot load it: {one_line(failure)}") from failure
        self.run_options = run_options(options)
        self.device = device
        self.inputs = tuple(tensor_info(node, "input", path) for node in self.ort.get_inputs())
        self.outputs = tuple(tensor_info(node, "output", path) for node in self.ort.get_outputs())
        types = {info.element_type for info in (*self.inputs, *self.outputs)}
        self.has_strings = STRING in types
        if self.has_strings and BFLOAT16 in types:
            raise ModelFailed(
                f"{path}: a model with both BYTES and BF16 tensors cannot be fed through ONNX Runtime's Python binding"
            )
