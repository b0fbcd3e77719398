"""What the cases are measured with: requests of three usual sizes, as clients send them."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inferd._native.reply import OutputView
    from inferd._native.signature import Signature
    from inferd._native.wire import Request

# Per datatype: the number that ONNX has for it, and Python's letter for an array of it.
DATATYPES: Mapping[str, tuple[int, str]] = {"FP32": (1, "f"), "INT64": (7, "q")}
STRING = 8
MAX_ROWS = 64


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or an output of one row."""

    name: str
    datatype: str
    dims: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Elements of one row."""
        return math.prod(self.dims)

    @property
    def values(self) -> array[float] | array[int]:
        """One row: small numbers, all sorts of bits."""
        letter = DATATYPES[self.datatype][1]
        few = array(letter, [index / 509 if letter == "f" else index * 7919 % 30_000 for index in range(509)])
        return (few * (self.elements // len(few) + 1))[: self.elements]

    @property
    def raw(self) -> bytes:
        """One row as raw contents have it."""
        values = self.values
        if sys.byteorder == "big":
            values.byteswap()
        return values.tobytes()


@dataclass(frozen=True, slots=True)
class Model:
    """A model as its clients see it; every request of these benchmarks is one row."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def message(self, *, typed: bool = False) -> bytes:
        """A ModelInferRequest with raw contents, or with typed ones."""
        from inferd.proto.inference_pb2 import ModelInferRequest

        made = ModelInferRequest(model_name=self.name, id="42")
        for tensor in self.inputs:
            sent = made.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=[1, *tensor.dims])
            if not typed:
                made.raw_input_contents.append(tensor.raw)
            elif tensor.datatype == "FP32":
                sent.contents.fp32_contents.extend(tensor.values)
            else:
                sent.contents.int64_contents.extend(map(int, tensor.values))
        return made.SerializeToString(deterministic=True)

    def answer(self) -> bytes:
        """The ModelInferResponse for one row, as protobuf writes it."""
        from inferd.proto.inference_pb2 import ModelInferResponse

        made = ModelInferResponse(model_name=self.name, model_version="1", id="42")
        for tensor in self.outputs:
            made.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=[1, *tensor.dims])
            made.raw_output_contents.append(tensor.raw)
        return made.SerializeToString(deterministic=True)

    def signature(self) -> Signature:
        """What the model accepts: any number of rows up to MAX_ROWS."""
        from inferd._native.signature import Signature

        def declared(tensors: tuple[Tensor, ...]) -> list[tuple[str, int, list[int]]]:
            return [(one.name, DATATYPES[one.datatype][0], [-1, *one.dims]) for one in tensors]

        return Signature(self.name, "1", declared(self.inputs), declared(self.outputs), batched=True, max_rows=MAX_ROWS)

    def bound(self, signature: Signature, count: int, *, typed: bool = False) -> list[Request]:
        """So many requests, decoded and bound."""
        from inferd._native.bind import bind
        from inferd._native.wire import decode

        message = self.message(typed=typed)
        requests = [decode(message) for _ in range(count)]
        for request in requests:
            bind(signature, request)
        return requests

    def results(self, rows: int) -> list[OutputView]:
        """What a run of so many rows gives: every row alike."""
        from inferd._native.reply import OutputView

        views = []
        for tensor in self.outputs:
            memory = array("B", tensor.raw * rows)
            address, _ = memory.buffer_info()
            shape = [rows, *tensor.dims]
            views.append(OutputView(DATATYPES[tensor.datatype][0], shape, address=address, owner=memory))
        return views


# A message of 89 bytes: 16 floats in, 2 out.
TINY = Model("m1", (Tensor("x", "FP32", (16,)),), (Tensor("y", "FP32", (2,)),))
# What an encoder of text takes: three inputs of 128 tokens.
TOKENS = Model(
    "bert",
    tuple(Tensor(name, "INT64", (128,)) for name in ("input_ids", "attention_mask", "token_type_ids")),
    (Tensor("logits", "FP32", (2,)),),
)
# 602 KB in and out: an image of 224 by 224 pixels.
IMAGE = Model("image", (Tensor("pixels", "FP32", (3, 224, 224)),), (Tensor("mask", "FP32", (3, 224, 224)),))


def strings_message(count: int) -> bytes:
    """A request with so many short strings."""
    from inferd.proto.inference_pb2 import ModelInferRequest

    made = ModelInferRequest(model_name="text", id="42")
    made.inputs.add(name="text", datatype="BYTES", shape=[count])
    made.raw_input_contents.append(
        b"".join(len(one).to_bytes(4, "little") + one for one in map(str.encode, words(count)))
    )
    return made.SerializeToString(deterministic=True)


def words(count: int) -> list[str]:
    """So many short strings."""
    return [f"the string number {index}" for index in range(count)]


def of_width(width: int) -> Model:
    """A model whose row has so many floats: requests of different widths never share a run."""
    return Model("any", (Tensor("x", "FP32", (width,)),), (Tensor("y", "FP32", (1,)),))
