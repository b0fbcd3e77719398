"""The best classes of an output as text, beside what numpy sorts and Python formats."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from handmade import NUMBERS, SIZES, bound, message, signature_of
from hypothesis import given
from hypothesis import strategies as st

from inferd._native.batch import alone
from inferd._native.classes import Labels
from inferd._native.queue import BatchQueue
from inferd._native.reply import OutputView, answer
from inferd._native.signature import Signature
from inferd._native.wire import Request
from inferd.proto import inference_pb2 as pb

NUMPY: Mapping[str, str] = {
    "BOOL": "u1", "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "UINT8": "u1", "UINT16": "<u2",
    "UINT32": "<u4", "UINT64": "<u8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
FLOATS = ("FP16", "BF16", "FP32", "FP64")


def model(
    datatype: str, shape: Sequence[int], *, batched: bool, labels: Mapping[str, Labels] | None = None
) -> Signature:
    rows = [-1] if batched else []
    return Signature(
        "m", "1", [("x", NUMBERS["UINT8"], [*rows, 1])], [("y", NUMBERS[datatype], [*rows, *shape])],
        batched=batched, max_rows=8, lenient=True, labels=labels,
    )  # fmt: skip


def asking(signature: Signature, classes: int, rows: int = 1) -> Request:
    made = message(("x", "UINT8", [rows, 1] if signature.batched else [1], bytes(rows)), wanted=["y"])
    made.outputs[0].parameters["classification"].int64_param = classes
    return bound(signature, made)


def view(datatype: str, shape: Sequence[int], raw: bytes) -> OutputView:
    memory = np.frombuffer(raw + bytes(8), np.uint8).copy()
    return OutputView(NUMBERS[datatype], shape, address=memory.ctypes.data, owner=memory)


def told(request: Request) -> tuple[list[int], list[bytes]]:
    """Shape and elements of the one output of an answer, which must be BYTES."""
    assert request.answer is not None
    found = pb.ModelInferResponse.FromString(request.answer)
    (output,), (raw,) = found.outputs, found.raw_output_contents
    assert (output.name, output.datatype) == ("y", "BYTES")
    elements = []
    while raw:
        (length,) = struct.unpack_from("<I", raw)
        elements.append(raw[4 : 4 + length])
        raw = raw[4 + length :]
    return list(output.shape), elements


def classes_of(datatype: str, raw: bytes, classes: int, labels: Sequence[bytes] = ()) -> list[bytes]:
    """What a row must read as, by sorting it."""
    if datatype == "BF16":
        values = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
    else:
        values = np.frombuffer(raw, NUMPY[datatype])
    is_float = datatype in FLOATS
    numbers = [float(value) if is_float else int(value) for value in values]
    order = sorted(
        range(len(numbers)),
        key=lambda index: (math.isnan(numbers[index]), 0 if math.isnan(numbers[index]) else -numbers[index], index),
    )
    found = []
    for index in order[:classes]:
        text = f"{numbers[index]:f}" if is_float else str(numbers[index])
        label = labels[index] if index < len(labels) else b""
        found.append(f"{text}:{index}".encode() + (b":" + label if label else b""))
    return found


def same(found: bytes, expected: bytes) -> bool:
    """C prints the sign of what is not a number, Python does not."""
    return found.removeprefix(b"-") == expected if expected.startswith(b"nan") else found == expected


@given(st.data())
def test_a_row_reads_as_its_numbers_sorted(data: st.DataObject) -> None:
    datatype = data.draw(st.sampled_from([*NUMPY, "BF16"]))
    width = data.draw(st.integers(0, 12))
    classes = data.draw(st.integers(1, 15) | st.just(1 << 62))
    # Few different values, so that many are equal; and any at all.
    few = data.draw(st.lists(st.binary(min_size=SIZES[datatype], max_size=SIZES[datatype]), min_size=1, max_size=3))
    if datatype == "BOOL":
        few = [b"\0", b"\1"]
    if datatype in ("FP32", "FP64"):
        few += [struct.pack("<f" if datatype == "FP32" else "<d", value) for value in (math.nan, -math.inf, 0.0, -0.0)]
    raw = b"".join(data.draw(st.lists(st.sampled_from(few), min_size=width, max_size=width)))
    names = data.draw(st.lists(st.sampled_from([b"", b"cat", b"\xff a:b"]), max_size=12))
    signature = model(datatype, [width], batched=False, labels={"y": Labels(names)})
    request = asking(signature, classes)
    answer(alone(signature, request), [view(datatype, [width], raw)])
    expected = classes_of(datatype, raw, classes, names)
    shape, elements = told(request)
    assert shape == [len(expected)]
    assert all(same(a, b) for a, b in zip(elements, expected, strict=True)), (elements, expected)


@pytest.mark.parametrize("classes", [1, 3, 7, 100_000])
def test_a_long_row_is_sorted_alike(classes: int) -> None:
    scores = np.random.default_rng(7).standard_normal(30_000).astype("<f4")
    signature = model("FP32", [3, 10_000], batched=False)
    request = asking(signature, classes)
    answer(alone(signature, request), [view("FP32", [3, 10_000], scores.tobytes())])
    expected = classes_of("FP32", scores.tobytes(), classes)
    assert told(request) == ([min(classes, 30_000)], expected)


def test_the_rows_of_requests_that_share_a_run_are_each_ranked_for_their_own() -> None:
    signature = model("INT32", [2, 2], batched=True, labels={"y": Labels([b"a", b"b", b"c", b"d"])})
    queue = BatchQueue(signature, batch_rows=8, max_queue_rows=8, max_queue_bytes=1 << 10)
    plain = bound(signature, message(("x", "UINT8", [1, 1], b"\0")))
    requests = [asking(signature, 2, rows=2), plain, asking(signature, 9)]
    for request in requests:
        queue.put(request, 0)
    batch = queue.take(0)
    assert batch is not None
    assert batch.rows == 4
    values = np.array([[1, 2, 3, 4], [9, 0, 8, 1], [5, 6, 7, 8], [-1, -2, -3, -1]], "<i4")
    answer(batch, [view("INT32", [4, 2, 2], values.tobytes())])
    assert told(requests[0]) == ([2, 2], [b"4:3:d", b"3:2:c", b"9:0:a", b"8:2:c"])
    assert told(requests[2]) == ([1, 4], [b"-1:0:a", b"-1:3:d", b"-2:1:b", b"-3:2:c"])
    assert plain.answer is not None
    assert pb.ModelInferResponse.FromString(plain.answer).raw_output_contents == [values[2].tobytes()]


@pytest.mark.parametrize(("rows", "shape"), [(0, [0, 2]), (9, [9, 2])])
def test_a_request_that_runs_apart_has_a_row_of_classes_for_each_row(rows: int, shape: list[int]) -> None:
    signature = model("FP64", [3], batched=True)
    request = asking(signature, 2, rows=rows)
    assert request.apart
    answer(alone(signature, request), [view("FP64", [rows, 3], np.arange(3.0 * rows).tobytes())])
    assert told(request)[0] == shape
    assert told(request)[1] == [f"{3 * row + index}.000000:{index}".encode() for row in range(rows) for index in (2, 1)]


def test_a_scalar_is_its_own_best_class() -> None:
    signature = model("FP32", [], batched=False)
    request = asking(signature, 3)
    answer(alone(signature, request), [view("FP32", [], struct.pack("<f", 0.5))])
    assert told(request) == ([1], [b"0.500000:0"])


def test_the_largest_numbers_are_written_out() -> None:
    signature = model("FP64", [2], batched=False)
    request = asking(signature, 2)
    answer(alone(signature, request), [view("FP64", [2], struct.pack("<2d", -1.7976931348623157e308, 5e-324))])
    assert told(request)[1] == [b"0.000000:1", f"{-1.7976931348623157e308:f}:0".encode()]


def test_another_output_of_the_request_stays_as_it_is() -> None:
    signature = signature_of({"x": ("UINT8", [1])}, {"a": ("INT8", [2]), "b": ("INT8", [2])})
    made = message(("x", "UINT8", [1], b"\0"), wanted=["b", "a"])
    made.outputs[0].parameters["classification"].int64_param = 1
    request = bound(signature, made)
    answer(alone(signature, request), [view("INT8", [2], b"\3\4"), view("INT8", [2], b"\5\6")])
    assert request.answer is not None
    found = pb.ModelInferResponse.FromString(request.answer)
    assert [(one.name, one.datatype, list(one.shape)) for one in found.outputs] == [
        ("a", "INT8", [2]),
        ("b", "BYTES", [1]),
    ]
    assert list(found.raw_output_contents) == [b"\3\4", b"\3\0\0\0" + b"6:1"]
