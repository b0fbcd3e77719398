"""Regions of shared memory: which are opened, and tensors that are read from them and written to them."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from handmade import message, packed_strings, signature_of
from shared import FOLDER, Memory, memory

from inferd._native.batch import Batch, alone
from inferd._native.bind import bind
from inferd._native.gather import gather, strings
from inferd._native.queue import BatchQueue
from inferd._native.region import Region, Regions
from inferd._native.reply import OutputView, answer
from inferd._native.signature import Signature
from inferd._native.wire import Request, decode
from inferd.errors import (
    InferdError,
    InvalidRequest,
    NotOffered,
    RegionExists,
    RegionShrank,
    TooManyRegions,
    UnknownRegion,
)
from inferd.proto import inference_pb2 as pb

MOST = (1 << 64) - 1
ROWS = signature_of({"x": ("INT32", [-1, 2]), "s": ("BYTES", [-1])}, {"y": ("INT32", [-1, 2])}, batched=True)
FIXED = signature_of({"x": ("INT32", [4])}, {"y": ("INT32", [4]), "z": ("INT32", [4])})
NUMBERS = np.arange(16, dtype="<i4")


@pytest.fixture
def shm() -> Iterator[Memory]:
    with memory(NUMBERS.tobytes()) as made:
        yield made


@pytest.fixture
def regions(shm: Memory) -> Regions:
    """With the whole of `shm` under the name r."""
    made = Regions(8)
    made.register("r", shm.key, 0, 64)
    return made


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


# --- registering ------------------------------------------------------------------------------------


def test_what_is_registered_is_told(shm: Memory) -> None:
    regions = Regions(2)
    regions.register("a/b:0", shm.key, 8, 16)
    (found,) = regions.all()
    assert (found.name, found.key, found.offset, found.byte_size) == ("a/b:0", shm.key, 8, 16)
    assert regions.find("a/b:0") is found
    regions.register("whole", shm.key.lstrip("/"), 0, 64)
    regions.unregister("a/b:0")
    regions.unregister("a/b:0")
    with pytest.raises(UnknownRegion, match="no region 'a/b:0'"):
        regions.find("a/b:0")
    regions.clear()
    assert regions.all() == []


def test_a_name_is_used_once(shm: Memory, regions: Regions) -> None:
    with pytest.raises(RegionExists, match="region 'r' is registered already"):
        regions.register("r", shm.key, 0, 4)
    assert regions.find("r").byte_size == 64


@pytest.mark.parametrize("name", ["", "a b", "a\n", "\u00e9", "a" * 257, "\x7f"])
def test_a_name_that_cannot_be_shown_is_refused(shm: Memory, name: str) -> None:
    with pytest.raises(InvalidRequest, match="printable ASCII"):
        Regions(1).register(name, shm.key, 0, 4)


@pytest.mark.parametrize(
    ("offset", "byte_size"), [(0, 65), (61, 4), (64, 1), (MOST, 1), (1, MOST), (MOST, MOST), (1 << 63, 1 << 63)]
)
def test_a_region_that_reaches_past_the_end_is_refused(shm: Memory, offset: int, byte_size: int) -> None:
    with pytest.raises(InvalidRequest, match="reach past the end") as refused:
        Regions(1).register("r", shm.key, offset, byte_size)
    assert shm.key[1:] not in str(refused.value)


def test_a_region_of_no_bytes_is_refused(shm: Memory) -> None:
    with pytest.raises(InvalidRequest, match="byte_size of 0"):
        Regions(1).register("r", shm.key, 0, 0)


@pytest.mark.parametrize("key", ["", "/", "..", "/..", ".", "a/b", "../etc/passwd", "/a/../b", "a\0b", "a" * 256])
def test_a_key_is_one_bare_name(key: str) -> None:
    with pytest.raises(InvalidRequest, match="the key of region 'r' is not one"):
        Regions(1).register("r", key, 0, 4)


def links_elsewhere(path: str) -> None:
    os.symlink("/etc/passwd", path)


def links_nearby(path: str) -> None:
    os.symlink(os.path.basename(path) + "-nothing", path)


@pytest.mark.parametrize("make", [lambda path: None, links_elsewhere, links_nearby, os.mkdir, os.mkfifo])
def test_what_is_no_shared_memory_is_not_opened(make: Callable[[str], None]) -> None:
    path = FOLDER / f"inferd-test-{os.getpid()}"
    before = open_files()
    make(str(path))
    try:
        with pytest.raises(InvalidRequest, match="names no shared memory that this server can open") as refused:
            Regions(1).register("r", path.name, 0, 4)
    finally:
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
    assert path.name not in str(refused.value)
    assert open_files() == before


def test_only_so_many_may_be_registered(shm: Memory) -> None:
    regions = Regions(2)
    for name in "ab":
        regions.register(name, shm.key, 0, 4)
    with pytest.raises(TooManyRegions, match="2 regions are registered"):
        regions.register("c", shm.key, 0, 4)
    regions.unregister("a")
    regions.register("c", shm.key, 0, 4)


def test_a_region_is_made_by_registering_alone() -> None:
    with pytest.raises(TypeError):
        Region()


# --- where a tensor lies ----------------------------------------------------------------------------


def place(parameters: object, byte_size: object = None, region: object = "r", offset: object = None) -> None:
    """Set the parameters of a tensor; None leaves one out."""
    said = {"region": region, "byte_size": byte_size, "offset": offset}
    for key, value in said.items():
        if value is not None:
            kind = "string_param" if isinstance(value, str) else "int64_param"
            setattr(parameters[f"shared_memory_{key}"], kind, value)  # type: ignore[index]


def in_region(byte_size: object = 16, *, region: object = "r", offset: object = None) -> pb.ModelInferRequest:
    made = message(("x", "INT32", [4], None))
    place(made.inputs[0].parameters, byte_size, region, offset)
    return made


def bound(signature: Signature, made: pb.ModelInferRequest, regions: Regions | None) -> Request:
    request = decode(made.SerializeToString())
    bind(signature, request, regions)
    return request


def refused(
    signature: Signature, made: pb.ModelInferRequest, regions: Regions | None, kind: type[InferdError] = InvalidRequest
) -> str:
    request = decode(made.SerializeToString())
    with pytest.raises(kind) as found:
        bind(signature, request, regions)
    return str(found.value)


def gathered(batch: Batch, index: int = 0) -> bytes:
    room = ctypes.create_string_buffer(b"\xee" * batch.input_nbytes(index), batch.input_nbytes(index) or 1)
    gather(batch, index, ctypes.addressof(room), batch.input_nbytes(index))
    return room.raw[: batch.input_nbytes(index)]


def test_an_input_is_read_from_where_it_is_when_it_is_gathered(shm: Memory, regions: Regions) -> None:
    request = bound(FIXED, in_region(offset=20), regions)
    assert request.nbytes == 16
    assert request.tensor_bytes(0) == NUMBERS[5:9].tobytes()
    shm.write(b"\7\0\0\0", 20)
    assert np.array_equal(np.frombuffer(gathered(alone(FIXED, request)), "<i4"), [7, 6, 7, 8])


def test_the_offset_counts_from_that_of_the_region(shm: Memory) -> None:
    regions = Regions(1)
    regions.register("r", shm.key, 7, 21)
    raw = NUMBERS.tobytes()
    assert gathered(alone(FIXED, bound(FIXED, in_region(offset=5), regions))) == raw[12:28]
    assert "but region 'r' has 21" in refused(FIXED, in_region(offset=6), regions)


def test_a_large_input_is_read_whole() -> None:
    values = np.random.default_rng(0).bytes(3_000_000)
    signature = signature_of({"x": ("UINT8", [-1])})
    with memory(values) as shm:
        regions = Regions(1)
        regions.register("r", shm.key, 0, len(values))
        made = message(("x", "UINT8", [len(values) - 3], None))
        place(made.inputs[0].parameters, len(values) - 3, offset=3)
        assert gathered(alone(signature, bound(signature, made, regions))) == values[3:]


def test_raw_contents_are_those_of_the_inputs_that_are_not_in_shared_memory(regions: Regions) -> None:
    signature = signature_of({name: ("INT32", [1]) for name in "abcd"})
    made = message(*((name, "INT32", [1], None) for name in "dbca"))
    made.raw_input_contents.extend([b"dddd", b"cccc"])
    for index, offset in ((1, 4), (3, 8)):
        place(made.inputs[index].parameters, 4, offset=offset)
    request = bound(signature, made, regions)
    found = [request.tensor_bytes(index) for index in range(4)]
    assert found == [b"\2\0\0\0", b"\1\0\0\0", b"cccc", b"dddd"]
    made.raw_input_contents.append(b"bbbb")
    assert "has 3 entries for 2 inputs that are not in shared memory" in refused(signature, made, regions)
    del made.raw_input_contents[1:]
    assert "has 1 entries for 2 inputs that are not in shared memory" in refused(signature, made, regions)


def test_typed_contents_and_shared_memory_go_together(regions: Regions) -> None:
    signature = signature_of({"a": ("INT16", [2]), "b": ("INT32", [1]), "c": ("INT32", [1])})
    made = message(("a", "INT16", [2], None), ("b", "INT32", [1], None), ("c", "INT32", [1], None))
    made.inputs[0].contents.int_contents.extend([-1, 2])
    made.inputs[2].contents.int_contents.append(3)
    place(made.inputs[1].parameters, 4, offset=12)
    request = bound(signature, made, regions)
    assert [request.tensor_bytes(index) for index in range(3)] == [b"\xff\xff\2\0", b"\3\0\0\0", b"\3\0\0\0"]
    made.inputs[1].contents.int_contents.append(3)
    assert "input 'b' is in shared memory and has typed contents" in refused(signature, made, regions)


def test_strings_are_what_they_were_when_they_were_checked(shm: Memory, regions: Regions) -> None:
    signature = signature_of({"s": ("BYTES", [2])})
    raw = packed_strings([b"one", "\u00e9".encode()])
    shm.write(raw)
    made = message(("s", "BYTES", [2], None))
    place(made.inputs[0].parameters, len(raw))
    request = bound(signature, made, regions)
    shm.write(b"\xff" * 64)
    assert strings(alone(signature, request), 0) == ["one", "\u00e9"]
    assert "claims 4294967295 bytes" in refused(signature, made, regions)


def test_strings_in_shared_memory_are_utf8(shm: Memory, regions: Regions) -> None:
    signature = signature_of({"s": ("BYTES", [1])})
    shm.write(packed_strings([b"\xff"]))
    made = message(("s", "BYTES", [1], None))
    place(made.inputs[0].parameters, 5)
    assert "is not UTF-8" in refused(signature, made, regions)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (in_region(12), "takes 16 bytes but has 12"),
        (in_region(None), "so it needs 'shared_memory_byte_size' too"),
        (in_region(region=None), "but needs 'shared_memory_region' too"),
        (in_region(None, region=None, offset=0), "but needs 'shared_memory_region' too"),
        (in_region("16"), "'shared_memory_byte_size' of input 'x' is not an int64 of at least 0"),
        (in_region(-16), "'shared_memory_byte_size' of input 'x' is not an int64 of at least 0"),
        (in_region(offset="0"), "'shared_memory_offset' of input 'x' is not an int64 of at least 0"),
        (in_region(offset=-1), "'shared_memory_offset' of input 'x' is not an int64 of at least 0"),
        (in_region(region=3), "'shared_memory_region' of input 'x' is not a string"),
        (in_region(offset=49), "16 bytes at offset 49, but region 'r' has 64"),
        (in_region(offset=(1 << 63) - 1), f"at offset {(1 << 63) - 1}, but region 'r' has 64"),
        (in_region((1 << 63) - 1, offset=(1 << 63) - 1), "but region 'r' has 64"),
    ],
)
def test_what_does_not_say_where_it_is_is_refused(made: pb.ModelInferRequest, words: str, regions: Regions) -> None:
    assert words in refused(FIXED, made, regions)


@pytest.mark.parametrize("name", ["", "nobody", "x" * 10_000])
def test_a_region_that_nobody_registered_is_not_found(regions: Regions, name: str) -> None:
    assert f"no region {name[:256]!r}" in refused(FIXED, in_region(region=name), regions, UnknownRegion)


def test_the_last_value_of_a_parameter_counts(regions: Regions) -> None:
    made = in_region(region="nobody")
    tensor = made.inputs[0].SerializeToString()
    more = pb.ModelInferRequest.InferInputTensor()
    more.parameters["shared_memory_region"].string_param = "r"
    del made.inputs[:]
    body = made.SerializeToString() + b"\x2a" + bytes([len(tensor) + len(more.SerializeToString())])
    request = decode(body + tensor + more.SerializeToString())
    bind(FIXED, request, regions)
    assert request.tensor_bytes(0) == NUMBERS[:4].tobytes()


def test_a_server_without_regions_offers_none(regions: Regions) -> None:
    assert "input 'x' is in shared memory, which" in refused(FIXED, in_region(), None, NotOffered)
    made = message(("x", "INT32", [4], bytes(16)), wanted=["y"])
    place(made.outputs[0].parameters, 16)
    assert "output 'y' asks for shared memory, which" in refused(FIXED, made, None, NotOffered)


# --- memory that changes under a request -----------------------------------------------------------


def test_memory_that_has_become_smaller_is_refused(shm: Memory, regions: Regions) -> None:
    shm.shrink(16)
    bound(FIXED, in_region(), regions)
    text = refused(FIXED, in_region(offset=4), regions)
    assert text == "input 'x' is not there: the memory of region 'r' has become smaller"


def test_memory_that_becomes_smaller_after_the_check_is_an_error_and_no_signal(shm: Memory, regions: Regions) -> None:
    request = bound(FIXED, in_region(), regions)
    shm.shrink(15)
    with pytest.raises(RegionShrank):
        gathered(alone(FIXED, request))
    with pytest.raises(ValueError, match="smaller"):
        request.tensor_bytes(0)


def test_a_region_that_is_unregistered_stays_open_for_who_uses_it(shm: Memory) -> None:
    before = open_files()
    regions = Regions(1)
    regions.register("r", shm.key, 0, 64)
    made = message(("x", "INT32", [4], None), wanted=["y"])
    place(made.inputs[0].parameters, 16)
    place(made.outputs[0].parameters, 16, offset=32)
    request = bound(FIXED, made, regions)
    regions.clear()
    shm.path.unlink()
    assert open_files() == before + 1
    assert gathered(alone(FIXED, request)) == NUMBERS[:4].tobytes()
    del request
    assert open_files() == before


# --- answers ------------------------------------------------------------------------------------------


def view(shape: Sequence[int], values: np.ndarray) -> OutputView:
    return OutputView(6, shape, address=values.ctypes.data, owner=values)


def asking(rows: int, offset: int | None = None, byte_size: int | None = None, id: str = "") -> pb.ModelInferRequest:
    made = message(
        ("x", "INT32", [rows, 2], bytes(8 * rows)), ("s", "BYTES", [rows], packed_strings([b""] * rows)), wanted=["y"]
    )
    made.id = id
    if offset is not None:
        place(made.outputs[0].parameters, 8 * rows if byte_size is None else byte_size, offset=offset)
    return made


def told(request: Request) -> pb.ModelInferResponse:
    assert request.error is None
    assert request.answer is not None
    return pb.ModelInferResponse.FromString(request.answer)


def run(*requests: Request) -> None:
    """One batch of them, answered with 100, 101, 102 ..."""
    queue = BatchQueue(ROWS, batch_rows=64, max_queue_rows=64, max_queue_bytes=1 << 20)
    for request in requests:
        queue.put(request, 0)
    batch = queue.take(0)
    assert batch is not None
    values = np.arange(100, 100 + 2 * batch.rows, dtype="<i4")
    answer(batch, [view([batch.rows, 2], values)])


def test_each_members_rows_go_to_its_own_place(shm: Memory, regions: Regions) -> None:
    first, plain, last = (bound(ROWS, made, regions) for made in (asking(2, 40), asking(1), asking(1, 0, 12)))
    run(first, plain, last)
    values = np.frombuffer(shm.contents, "<i4")
    assert values.tolist() == [106, 107, *range(2, 10), 100, 101, 102, 103, 14, 15]
    assert list(told(plain).raw_output_contents) == [np.array([104, 105], "<i4").tobytes()]
    for request, rows in ((first, 2), (last, 1)):
        found = told(request)
        assert list(found.raw_output_contents) == [b""]
        (output,) = found.outputs
        assert (output.name, output.datatype, list(output.shape)) == ("y", "INT32", [rows, 2])
        assert not output.parameters


def test_the_raw_entries_of_the_other_outputs_keep_their_places(shm: Memory, regions: Regions) -> None:
    made = message(("x", "INT32", [4], bytes(16)), wanted=["z", "y"])
    place(made.outputs[1].parameters, 16, offset=48)
    request = bound(FIXED, made, regions)
    answer(alone(FIXED, request), [view([4], NUMBERS[:4].copy()), view([4], NUMBERS[4:8].copy())])
    assert [output.name for output in told(request).outputs] == ["y", "z"]
    assert list(told(request).raw_output_contents) == [b"", NUMBERS[4:8].tobytes()]
    assert shm.contents[48:] == NUMBERS[:4].tobytes()


def test_strings_are_written_as_the_wire_has_them(shm: Memory, regions: Regions) -> None:
    words = signature_of({"x": ("INT32", [1])}, {"w": ("BYTES", [2])})
    made = message(("x", "INT32", [1], bytes(4)), wanted=["w"])
    place(made.outputs[0].parameters, 20, offset=2)
    request = bound(words, made, regions)
    answer(alone(words, request), [OutputView(8, [2], strings=["ab", "\u00e9"])])
    raw = packed_strings([b"ab", "\u00e9".encode()])
    assert shm.contents == NUMBERS.tobytes()[:2] + raw + NUMBERS.tobytes()[2 + len(raw) :]


def test_a_large_output_is_written_whole() -> None:
    signature = signature_of({"x": ("INT32", [1])}, {"y": ("INT32", [-1])})
    values = np.random.default_rng(0).integers(0, 1 << 30, 500_000).astype("<i4")
    with memory(bytes(values.nbytes + 8)) as shm:
        regions = Regions(1)
        regions.register("r", shm.key, 0, values.nbytes + 8)
        made = message(("x", "INT32", [1], bytes(4)), wanted=["y"])
        place(made.outputs[0].parameters, values.nbytes, offset=4)
        request = bound(signature, made, regions)
        answer(alone(signature, request), [view([len(values)], values)])
        assert shm.contents == bytes(4) + values.tobytes() + bytes(4)


def test_a_place_that_is_too_small_is_the_error_of_that_request_alone(shm: Memory, regions: Regions) -> None:
    small, plain, fine = (bound(ROWS, made, regions) for made in (asking(2, 0, 15), asking(1), asking(1, 56)))
    run(small, plain, fine)
    assert isinstance(small.error, InvalidRequest)
    assert str(small.error) == "output 'y' is 16 bytes, but the request gives it 15 of shared memory"
    assert small.answer is None
    assert told(plain).raw_output_contents
    assert told(fine).raw_output_contents
    assert shm.contents == NUMBERS[:14].tobytes() + np.array([106, 107], "<i4").tobytes()


def test_an_output_whose_memory_has_gone_is_the_error_of_that_request_alone(shm: Memory, regions: Regions) -> None:
    gone, fine = (bound(ROWS, made, regions) for made in (asking(1, 8), asking(1, 0)))
    shm.shrink(8)
    run(gone, fine)
    assert isinstance(gone.error, RegionShrank)
    assert "output 'y' cannot be written: its shared memory has become smaller" in str(gone.error)
    assert told(fine).raw_output_contents
    assert len(shm.contents) == 8


def test_classes_and_shared_memory_do_not_go_together(regions: Regions) -> None:
    made = message(("x", "INT32", [4], bytes(16)), wanted=["y"])
    place(made.outputs[0].parameters, 16)
    made.outputs[0].parameters["classification"].int64_param = 1
    assert "output 'y' asks for its classes and for shared memory" in refused(FIXED, made, regions)


@pytest.mark.parametrize(
    ("region", "byte_size", "kind", "words"),
    [
        ("nobody", 16, UnknownRegion, "no region 'nobody'"),
        ("r", None, InvalidRequest, "output 'y' is in shared memory, so it needs 'shared_memory_byte_size'"),
        ("r", 65, InvalidRequest, "output 'y' is 65 bytes at offset 0, but region 'r' has 64"),
    ],
)
def test_an_output_is_placed_by_the_same_rules(
    regions: Regions, region: str, byte_size: int | None, kind: type[InferdError], words: str
) -> None:
    made = message(("x", "INT32", [4], bytes(16)), wanted=["y"])
    place(made.outputs[0].parameters, byte_size, region)
    assert words in refused(FIXED, made, regions, kind)


def test_strings_may_be_as_many_bytes_as_was_said_in_all_inputs_of_a_request() -> None:
    signature = signature_of({name: ("BYTES", [1]) for name in "ab"})
    raw = packed_strings([b"123456"])
    with memory(raw) as shm:

        def asked(most: int) -> tuple[pb.ModelInferRequest, Regions]:
            regions = Regions(1, most)
            regions.register("r", shm.key, 0, len(raw))
            made = message(("a", "BYTES", [1], None), ("b", "BYTES", [1], None))
            for one in made.inputs:
                place(one.parameters, len(raw))
            return made, regions

        assert bound(signature, *asked(2 * len(raw))).nbytes == 2 * len(raw)
        assert refused(signature, *asked(2 * len(raw) - 1)) == (
            "input 'b' brings the strings of this request in shared memory to 20 bytes; "
            "they are copied, and may be at most 19 as in a message (grpc.max_message_bytes)"
        )
        assert "input 'a' brings" in refused(signature, *asked(len(raw) - 1))
