"""Rows in, answers out: what gather copies, and what answer encodes as protobuf's own serializer would."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import pytest
from handmade import NUMBERS, SIZES, Spec, bound, message, packed_strings, signature_of
from hypothesis import given
from hypothesis import strategies as st

from inferd._native.batch import Batch, alone
from inferd._native.datatype import NAMES, name_of, size_of
from inferd._native.gather import gather, strings
from inferd._native.queue import BatchQueue
from inferd._native.reply import OutputView, answer, streamed_failure
from inferd._native.signature import Signature
from inferd._native.wire import Request
from inferd.errors import RunFailed
from inferd.proto import inference_pb2 as pb

ANY = signature_of({}, {"y": ("FP32", [-1, -1])})


def batch_of(signature: Signature, *requests: Request) -> Batch:
    """The requests as one batch, cut from a queue."""
    found = BatchQueue(signature, batch_rows=1 << 20, max_queue_rows=1 << 20, max_queue_bytes=1 << 30)
    for request in requests:
        found.put(request, 0)
    batch = found.take(0)
    assert batch is not None
    assert batch.members == list(requests)
    return batch


def view_of(datatype: str, shape: Sequence[int], raw: bytes) -> OutputView:
    memory = ctypes.create_string_buffer(raw, max(len(raw), 1))
    return OutputView(NUMBERS[datatype], shape, address=ctypes.addressof(memory), owner=memory)


def parsed(request: Request) -> pb.ModelInferResponse:
    assert type(request.answer) is bytes
    return pb.ModelInferResponse.FromString(request.answer)


def gathered(batch: Batch, index: int) -> bytes:
    memory = ctypes.create_string_buffer(b"\xee" * (batch.input_nbytes(index) + 8))
    written = gather(batch, index, ctypes.addressof(memory), batch.input_nbytes(index))
    assert memory.raw[written : written + 8] == b"\xee" * 8
    return memory.raw[:written]


# --- datatypes --------------------------------------------------------------------------------------


def test_the_datatypes_have_the_names_numbers_and_sizes_of_the_protocol() -> None:
    assert {name: number for number, name in NAMES.items()} == NUMBERS
    assert {name: size_of(number) for name, number in NUMBERS.items()} == {**SIZES, "BYTES": 0}
    assert name_of(16) == "BF16"
    with pytest.raises(KeyError):
        name_of(14)


# --- gather -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("datatype", SIZES)
def test_the_rows_of_all_members_lie_in_order(datatype: str) -> None:
    signature = signature_of({"z": ("UINT8", [-1]), "x": (datatype, [-1, 3])}, batched=True)
    requests, expected = [], b""
    for rows in (2, 1, 4):
        raw = bytes((len(expected) + index) % 251 for index in range(rows * 3 * SIZES[datatype]))
        expected += raw
        requests.append(bound(signature, message(("z", "UINT8", [rows], bytes(rows)), ("x", datatype, [rows, 3], raw))))
    batch = batch_of(signature, *requests)
    assert gathered(batch, 1) == expected
    assert gathered(batch, 0) == bytes(7)


def test_a_large_input_is_gathered_alike() -> None:
    signature = signature_of({"x": ("UINT8", [-1, 50_000])}, batched=True)
    rows = [np.random.default_rng(seed).bytes(50_000) for seed in range(3)]
    batch = batch_of(signature, *(bound(signature, message(("x", "UINT8", [1, 50_000], row))) for row in rows))
    assert gathered(batch, 0) == b"".join(rows)


def test_typed_contents_are_gathered_as_raw_ones_are() -> None:
    signature = signature_of({"x": ("INT16", [-1])}, batched=True)
    typed = message(("x", "INT16", [2], None))
    typed.inputs[0].contents.int_contents.extend([-1, 2])
    raw = message(("x", "INT16", [1], b"\x03\0"))
    assert gathered(batch_of(signature, bound(signature, typed), bound(signature, raw)), 0) == b"\xff\xff\x02\0\x03\0"


def test_an_empty_input_gathers_nothing() -> None:
    signature = signature_of({"x": ("FP32", [-1, 0])}, batched=True)
    batch = batch_of(signature, *(bound(signature, message(("x", "FP32", [2, 0], b""))) for _ in range(2)))
    assert gather(batch, 0, 0, 0) == 0


@pytest.mark.parametrize("capacity", [0, 7, -1])
def test_memory_that_is_too_small_is_refused_before_anything_is_written(capacity: int) -> None:
    signature = signature_of({"x": ("INT64", [])})
    batch = alone(signature, bound(signature, message(("x", "INT64", [], bytes(8)))))
    with pytest.raises(ValueError, match=f"8 bytes do not fit into {capacity}"):
        gather(batch, 0, 0, capacity)


@pytest.mark.parametrize("index", [-1, 1])
def test_an_input_that_there_is_not_is_neither_gathered_nor_read(index: int) -> None:
    signature = signature_of({"x": ("BYTES", [])})
    batch = alone(signature, bound(signature, message(("x", "BYTES", [], bytes(4)))))
    with pytest.raises(IndexError):
        gather(batch, index, 0, 0)
    with pytest.raises(IndexError):
        strings(batch, index)


def test_the_strings_of_all_members_come_in_order() -> None:
    signature = signature_of({"x": ("BYTES", [-1, 2])}, batched=True)
    typed = message(("x", "BYTES", [1, 2], None))
    typed.inputs[0].contents.bytes_contents.extend([b"", "\u00e9\0".encode()])
    raw = message(("x", "BYTES", [2, 2], packed_strings([b"a", b"bc", b"", b"d" * 300])))
    batch = batch_of(signature, bound(signature, raw), bound(signature, typed))
    assert strings(batch, 0) == ["a", "bc", "", "d" * 300, "", "\u00e9\0"]


def test_numbers_are_not_read_as_strings() -> None:
    signature = signature_of({"x": ("FP32", [])})
    with pytest.raises(TypeError, match="not BYTES"):
        strings(alone(signature, bound(signature, message(("x", "FP32", [], b"\xff\xff\xff\xff")))), 0)


# --- answer -------------------------------------------------------------------------------------------


def canonical(outputs: Sequence[tuple[str, str, Sequence[int], bytes]], *, id: str = "42") -> bytes:
    """The answer as protobuf's own serializer writes it."""
    made = pb.ModelInferResponse(model_name="m", model_version="1", id=id)
    for name, datatype, shape, raw in outputs:
        made.outputs.add(name=name, datatype=datatype, shape=shape)
        made.raw_output_contents.append(raw)
    return made.SerializeToString(deterministic=True)


@pytest.mark.parametrize("datatype", SIZES)
def test_an_answer_is_byte_for_byte_what_protobuf_would_write(datatype: str) -> None:
    signature = signature_of({}, {"y": (datatype, [-1, 3])})
    raw = bytes(range(2 * 3 * SIZES[datatype]))
    request = bound(signature, message())
    answer(alone(signature, request), [view_of(datatype, [2, 3], raw)])
    assert request.answer == canonical([("y", datatype, [2, 3], raw)])


def test_an_answer_of_strings_is_byte_for_byte_what_protobuf_would_write() -> None:
    signature = signature_of({}, {"y": ("BYTES", [-1])})
    request = bound(signature, message())
    answer(alone(signature, request), [OutputView(NUMBERS["BYTES"], [3], strings=["a", "", "\u00e9"])])
    assert request.answer == canonical([("y", "BYTES", [3], packed_strings([b"a", b"", "\u00e9".encode()]))])


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16383, 16384, 65535, 65536, 1 << 21])
def test_lengths_of_every_width_are_written_right(size: int) -> None:
    signature = signature_of({}, {"y": ("UINT8", [-1])})
    raw = np.random.default_rng(size).bytes(size)
    request = bound(signature, message())
    answer(alone(signature, request), [view_of("UINT8", [size], raw)])
    assert request.answer == canonical([("y", "UINT8", [size], raw)])


@pytest.mark.parametrize("shape", [[], [0], [3, 0, 1 << 40], [1] * 64, [0, *[1 << 62] * 63]], ids=str)
def test_scalars_empty_tensors_and_64_dimensions_keep_their_shape(shape: list[int]) -> None:
    signature = signature_of({}, {"y": ("FP64", [])})
    raw = b"" if 0 in shape else b"12345678"
    request = bound(signature, message())
    answer(alone(signature, request), [view_of("FP64", shape, raw)])
    assert request.answer == canonical([("y", "FP64", shape, raw)])


@pytest.mark.parametrize("id", ["", "x", "\u00e9" * 100])
def test_the_id_of_the_request_is_repeated(id: str) -> None:
    made = message()
    made.id = id
    request = bound(ANY, made)
    answer(alone(ANY, request), [view_of("FP32", [1, 1], b"abcd")])
    assert request.answer == canonical([("y", "FP32", [1, 1], b"abcd")], id=id)


@pytest.mark.parametrize("size", [0, 1, 40, 100, 127, 128, 5000, 1 << 20])
def test_the_answer_to_a_stream_is_the_same_in_an_envelope_and_says_that_it_is_final(size: int) -> None:
    batch = alone(ANY, bound(ANY, message()))
    view = view_of("FP32", [1, size], bytes(4 * size))
    answer(batch, [view])
    expected = pb.ModelStreamInferResponse(infer_response=parsed(batch.members[0]))
    expected.infer_response.parameters["triton_final_response"].bool_param = True
    batch.members[0].streamed = True
    answer(batch, [view])
    assert pb.ModelStreamInferResponse.FromString(batch.members[0].answer) == expected


@pytest.mark.parametrize("text", ["why", "wh\u00ff" * 100])
@pytest.mark.parametrize("id", ["", "7", "x" * 200])
def test_a_failure_on_a_stream_has_its_words_and_the_id_of_its_request(text: str, id: str) -> None:
    found = pb.ModelStreamInferResponse.FromString(streamed_failure(text.encode(), id.encode()))
    expected = pb.ModelStreamInferResponse(error_message=text, infer_response={"id": id})
    expected.infer_response.parameters["triton_final_response"].bool_param = True
    assert found == expected


def test_each_member_gets_its_own_rows_and_its_own_id() -> None:
    signature = signature_of(
        {"x": ("UINT8", [-1])}, {"y": ("INT16", [-1, 2]), "s": ("BYTES", [-1, 2]), "n": ("FP32", [-1])}, batched=True
    )
    requests = []
    for rows in (2, 1, 3):
        made = message(("x", "UINT8", [rows], bytes(rows)))
        made.id = f"of {rows}"
        requests.append(bound(signature, made))
    words = [f"{row}{column}" for row in range(6) for column in "ab"]
    y = np.arange(12, dtype="<i2").tobytes()
    n = np.arange(6, dtype="<f4").tobytes()
    answer(
        batch_of(signature, *requests),
        [view_of("INT16", [6, 2], y), OutputView(NUMBERS["BYTES"], [6, 2], strings=words), view_of("FP32", [6], n)],
    )
    first = 0
    for request in requests:
        last = first + request.rows
        packed = packed_strings([word.encode() for word in words[2 * first : 2 * last]])
        assert request.answer == canonical(
            [
                ("y", "INT16", [request.rows, 2], y[4 * first : 4 * last]),
                ("s", "BYTES", [request.rows, 2], packed),
                ("n", "FP32", [request.rows], n[4 * first : 4 * last]),
            ],
            id=f"of {request.rows}",
        )
        first = last


def test_an_answer_holds_the_outputs_asked_for_in_the_order_of_the_model() -> None:
    signature = signature_of({}, {name: ("UINT8", [1]) for name in "abcd"})
    request = bound(signature, message(wanted=["d", "b"]))
    answer(alone(signature, request), [view_of("UINT8", [1], name.encode()) for name in "abcd"])
    assert request.answer == canonical([("b", "UINT8", [1], b"b"), ("d", "UINT8", [1], b"d")])


def test_one_of_more_than_16_outputs_can_be_asked_for() -> None:
    names = [f"y{index}" for index in range(30)]
    signature = signature_of({}, {name: ("UINT8", [1]) for name in names})
    request = bound(signature, message(wanted=["y29"]))
    answer(alone(signature, request), [view_of("UINT8", [1], bytes([index])) for index in range(30)])
    assert [output.name for output in parsed(request).outputs] == ["y29"]
    assert list(parsed(request).raw_output_contents) == [bytes([29])]


def test_members_of_one_batch_may_ask_for_different_outputs() -> None:
    outputs: dict[str, Spec] = {"a": ("UINT8", [-1]), "s": ("BYTES", [-1])}
    signature = signature_of({"x": ("UINT8", [-1])}, outputs, batched=True)
    made = [("x", "UINT8", [1], b"0")]
    requests = [bound(signature, message(*made, wanted=wanted)) for wanted in (["s"], [], ["a"])]
    answer(
        batch_of(signature, *requests),
        [view_of("UINT8", [3], b"pqr"), OutputView(NUMBERS["BYTES"], [3], strings=["k", "l", "m"])],
    )
    found = []
    for reply in map(parsed, requests):
        found.append(dict(zip([output.name for output in reply.outputs], reply.raw_output_contents, strict=True)))
    assert found == [
        {"s": packed_strings([b"k"])},
        {"a": b"q", "s": packed_strings([b"l"])},
        {"a": b"r"},
    ]


def test_an_output_without_a_batch_axis_goes_whole_to_the_one_member() -> None:
    request = bound(ANY, message())
    answer(alone(ANY, request), [view_of("FP32", [2, 2], bytes(range(16)))])
    assert parsed(request).outputs[0].shape == [2, 2]


def test_the_same_run_can_be_answered_again() -> None:
    request = bound(ANY, message())
    batch = alone(ANY, request)
    for raw in (b"abcd", b"efgh"):
        answer(batch, [view_of("FP32", [1, 1], raw)])
        assert parsed(request).raw_output_contents == [raw]


texts = st.text(st.characters(codec="utf-8"), max_size=4)
shapes = st.lists(st.integers(0, 4), max_size=3)


@given(
    outputs=st.dictionaries(texts, st.tuples(st.sampled_from(sorted(NUMBERS)), shapes), max_size=4),
    id=texts,
    data=st.data(),
)
def test_any_answer_is_what_protobuf_would_write(
    outputs: dict[str, tuple[str, list[int]]], id: str, data: st.DataObject
) -> None:
    signature = signature_of({}, {name: (datatype, [-1] * len(shape)) for name, (datatype, shape) in outputs.items()})
    views, expected = [], []
    for name, (datatype, shape) in outputs.items():
        count = int(np.prod(shape))
        if datatype == "BYTES":
            words = data.draw(st.lists(texts, min_size=count, max_size=count))
            views.append(OutputView(NUMBERS[datatype], shape, strings=words))
            raw = packed_strings([word.encode() for word in words])
        else:
            size = count * SIZES[datatype]
            raw = data.draw(st.binary(min_size=size, max_size=size))
            views.append(view_of(datatype, shape, raw))
        expected.append((name, datatype, shape, raw))
    made = message()
    made.id = id
    request = bound(signature, made)
    answer(alone(signature, request), views)
    assert request.answer == canonical(expected, id=id)


# --- runs that went wrong -------------------------------------------------------------------------------


def rows_batch() -> tuple[Request, Batch]:
    signature = signature_of({"x": ("UINT8", [-1])}, {"y": ("UINT8", [-1])}, batched=True)
    request = bound(signature, message(("x", "UINT8", [2], b"01")))
    return request, alone(signature, request)


@pytest.mark.parametrize("shape", [[], [1], [3], [1, 2], [0]])
def test_an_output_without_one_row_for_each_row_of_a_shared_run_is_a_failed_run(shape: list[int]) -> None:
    signature = signature_of({"x": ("UINT8", [-1])}, {"y": ("UINT8", [-1])}, batched=True)
    request, neighbour = (bound(signature, message(("x", "UINT8", [1], b"0"))) for _ in range(2))
    batch = batch_of(signature, request, neighbour)
    with pytest.raises(RunFailed, match="output 'y' of model 'm' does not have one row for each of 2 rows"):
        answer(batch, [view_of("UINT8", shape, b"12345678")])
    assert request.answer is None


def test_a_request_that_runs_alone_gets_whatever_rows_the_model_gives() -> None:
    request, batch = rows_batch()
    answer(batch, [view_of("UINT8", [3], b"123")])
    assert list(parsed(request).outputs[0].shape) == [3]


def test_an_output_of_another_datatype_is_a_failed_run() -> None:
    _, batch = rows_batch()
    with pytest.raises(RunFailed, match="output 'y' of model 'm' is not of the datatype"):
        answer(batch, [view_of("INT8", [2], b"12")])


def test_an_answer_of_2_gib_is_a_failed_run() -> None:
    request = bound(ANY, message())
    memory = ctypes.create_string_buffer(1)  # never read: the size alone decides
    with pytest.raises(RunFailed, match="a message holds at most 2147483647"):
        answer(alone(ANY, request), [OutputView(1, [1 << 29, 1], address=ctypes.addressof(memory))])


# --- bugs of ours -----------------------------------------------------------------------------------------


def test_there_is_one_view_per_output() -> None:
    _, batch = rows_batch()
    with pytest.raises(ValueError, match="0 views for 1 outputs"):
        answer(batch, [])


@pytest.mark.parametrize("wrong", [None, b"12"])
def test_a_view_is_an_output_view(wrong: object) -> None:
    _, batch = rows_batch()
    with pytest.raises(TypeError, match="view 0 is no OutputView"):
        answer(batch, [wrong])  # type: ignore[list-item]


def test_a_view_whose_shape_and_data_cannot_belong_together_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \[-1\]"):
        OutputView(1, [-1], address=1)
    with pytest.raises(ValueError, match="65 dimensions"):
        OutputView(1, [1] * 65, address=1)
    with pytest.raises(ValueError, match="without an address"):
        OutputView(1, [1])
    with pytest.raises(ValueError, match="without its 2 strings"):
        OutputView(8, [2])
    with pytest.raises(ValueError, match="without its 2 strings"):
        OutputView(8, [2], strings=["a"])
    with pytest.raises(OverflowError):
        OutputView(1, [1 << 40, 1 << 40], address=1)
