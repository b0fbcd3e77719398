"""Tensors in system shared memory: regions, and requests that use them.

A region is read by a request whose input lies in it, so that nobody but the servers looks into one. Each server has two
segments, which `conftest.py` makes, and each case begins and ends without regions.
"""

from __future__ import annotations

import os
from typing import Any

from serve.calls import request, rows

from inferd.proto import inference_pb2 as pb

from ..answers import Call
from .case import Case, Difference, changed, parameter
from .inference import packed

SEGMENT_BYTES = 4096
SEGMENTS = tuple(f"inferd-tests-{os.getpid()}-{name}" for name in ("in", "out"))
IN, OUT = (f"/{name}" for name in SEGMENTS)
ROW_BYTES = 16


def register(name: str, key: str, size: int = 256, offset: int = 0) -> Call:
    return _system("Register", name=name, key=key, offset=offset, byte_size=size)


def unregister(name: str = "") -> Call:
    return _system("Unregister", name=name)


def status(name: str = "") -> Call:
    return _system("Status", name=name)


def _system(what: str, **fields: Any) -> Call:
    method = f"SystemSharedMemory{what}"
    return Call(method, getattr(pb, f"{method}Request")(**fields))


def cuda(what: str, **fields: Any) -> Call:
    method = f"CudaSharedMemory{what}"
    return Call(method, getattr(pb, f"{method}Request")(**fields))


def region(tensor: Any, name: str, size: int, offset: int = 0, kind: str = "int64_param") -> None:
    """Let a tensor of a request lie in a region."""
    parameter(tensor, "shared_memory_region", "string_param", name)
    parameter(tensor, "shared_memory_byte_size", kind, size)
    if offset:
        parameter(tensor, "shared_memory_offset", kind, offset)


def filling(name: str = "in", size: int = ROW_BYTES, offset: int = 0) -> Any:
    """A request whose answer goes into a region."""
    message = request("scale", x=rows(1), outputs=["y"], id="fill")
    region(message.outputs[0], name, size, offset)
    return message


def reading(name: str = "in", size: int = ROW_BYTES, offset: int = 0, kind: str = "int64_param") -> Any:
    """A request whose input lies in a region."""
    message = pb.ModelInferRequest(model_name="scale", id="read")
    region(message.inputs.add(name="x", datatype="FP32", shape=[1, 4]), name, size, offset, kind)
    return message


def through(name: str = "in", answer: str = "out") -> Any:
    """From one region into the other."""
    message = reading(name)
    region(message.outputs.add(name="y"), answer, ROW_BYTES)
    return message


def texts_in_regions() -> tuple[Any, Any]:
    """BYTES into a region and out of it."""
    there = pb.ModelInferRequest(model_name="texts")
    there.inputs.add(name="IN", datatype="BYTES", shape=[1, 3])
    sent = packed(b"a", b"", "\u00e9".encode())
    there.raw_input_contents.append(sent)
    region(there.outputs.add(name="OUT"), "in", 64)
    back = pb.ModelInferRequest(model_name="texts")
    region(back.inputs.add(name="IN", datatype="BYTES", shape=[1, 3]), "in", len(sent))
    return there, back


def half_in_a_region() -> Any:
    """One input in a region, the other raw; one output in a region, the other in the answer."""
    message = pb.ModelInferRequest(model_name="two_by_two")
    region(message.inputs.add(name="a", datatype="FP32", shape=[1, 3]), "in", 12, 4)
    message.inputs.add(name="b", datatype="INT64", shape=[1, 1])
    message.raw_input_contents.append((3).to_bytes(8, "little"))
    region(message.outputs.add(name="total"), "out", 12)
    message.outputs.add(name="product")
    return message


def within(*requests: Any) -> tuple[Call, ...]:
    """The requests, with a region `in` that holds a row, and an empty one `out`."""
    return (
        *(unregister(), register("in", IN), register("out", OUT), Call("ModelInfer", filling())),
        *(Call("ModelInfer", one) for one in requests),
        unregister(),
    )


def regions(*calls: Call) -> tuple[Call, ...]:
    return (unregister(), *calls, unregister())


SHARED_KEY = Difference(
    what="a second region in a segment that has one",
    triton="OK, OK, INTERNAL, OK",
    inferd="OK, OK, OK, OK",
    why="Triton 2.51 has lost the segment by then. A client may well divide one.",
)
OFFSET = Difference(
    what="a region that begins 64 bytes into its segment",
    triton="INVALID_ARGUMENT",
    inferd="OK",
    why="Triton 2.51 takes whole pages only, and looks in the wrong place then.",
    seen=lambda answers: answers[1].code,
)
NO_SEGMENT = Difference(
    what="a region of a segment that does not exist",
    triton="INTERNAL",
    inferd="INVALID_ARGUMENT",
    why="The name is the client's.",
    seen=lambda answers: answers[1].code,
)
NO_ROOM = Difference(
    what="an answer larger than its room in a region",
    triton="INTERNAL",
    inferd="INVALID_ARGUMENT",
    why="The room is the client's.",
    seen=lambda answers: answers[4].code,
)
SURPLUS_RAW = Difference(
    what="an input in a region and also a raw entry for it",
    triton="OK",
    inferd="INVALID_ARGUMENT",
    why="As with any surplus entry.",
    seen=lambda answers: answers[4].code,
)
NO_GPU = Difference(
    what="CudaSharedMemoryRegister, on a machine without a GPU",
    triton="INVALID_ARGUMENT",
    inferd="UNIMPLEMENTED",
    why="There is no CUDA shared memory here, nor does `extensions` say so.",
)

CASES = (
    Case("of a GPU", (cuda("Status"), cuda("Unregister"), cuda("Unregister", name="in"))),
    Case("of a GPU, unknown", (cuda("Status", name="in"),)),
    Case("of a GPU, to register", (cuda("Register", name="in", raw_handle=bytes(64), byte_size=64),), NO_GPU),
    Case("no region", regions(status())),
    Case("an unknown region", regions(status("nothing"))),
    Case("an unknown region is given up", regions(unregister("nothing"))),
    Case("a region", regions(register("in", IN), status(), status("in"), unregister("in"), status())),
    Case("a key without its slash", regions(register("in", IN[1:]), status("in"))),
    Case("a region twice", regions(register("in", IN), register("in", IN), register("in", OUT))),
    Case("no such segment", regions(register("in", "/inferd-tests-nothing"), status()), NO_SEGMENT),
    Case("a region at an offset", regions(register("in", IN, offset=64), status("in")), OFFSET),
    Case("a region beyond its segment", regions(register("in", IN, SEGMENT_BYTES + 1), status())),
    Case("two regions in one segment", regions(register("1", IN), register("2", IN, 64)), SHARED_KEY),
    Case("from region to region", within(through(), reading("out"))),
    Case("at an offset", within(filling(offset=64), reading(offset=64))),
    Case("room to spare for an answer", within(filling("out", 64), reading("out"))),
    Case("half in a region", within(half_in_a_region())),
    Case("texts in regions", within(*texts_in_regions())),
    Case(
        "on a stream",
        (*within()[:-1], Call("ModelStreamInfer", [through()]), Call("ModelInfer", reading("out")), unregister()),
    ),
    Case("an input in an unknown region", within(reading("nothing"))),
    Case("an output in an unknown region", within(through(answer="nothing"))),
    Case("a region that was given up", (*within(), Call("ModelInfer", reading()))),
    Case("an input beyond its region", within(reading(offset=248))),
    Case("an input before its region", within(reading(offset=-4))),
    Case("an input of more bytes than its shape", within(reading(size=32))),
    Case("an input of less bytes than its shape", within(reading(size=8))),
    Case("an input of no bytes", within(reading(size=0))),
    Case("a size as another number", within(reading(kind="uint64_param"))),
    Case("an answer larger than its room", within(filling("out", 8)), NO_ROOM),
    Case("an answer beyond its region", within(filling("out", 512))),
    Case(
        "a region without a size",
        within(changed(reading(), lambda one: one.inputs[0].parameters.pop("shared_memory_byte_size"))),
    ),
    Case(
        "a size without a region",
        within(changed(reading(), lambda one: one.inputs[0].parameters.pop("shared_memory_region"))),
    ),
    Case(
        "a region and typed contents",
        within(changed(reading(), lambda one: one.inputs[0].contents.fp32_contents.extend([1, 2, 3, 4]))),
    ),
    Case(
        "a region and raw contents",
        within(changed(reading(), lambda one: one.raw_input_contents.append(bytes(16)))),
        SURPLUS_RAW,
    ),
    Case(
        "a region and classes",
        within(changed(filling(), lambda one: parameter(one.outputs[0], "classification", "int64_param", 1))),
    ),
)
