"""Tensors in memory of a GPU that clients lend, over a recording of CuPy's calls, which notices disorder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import handmade
import numpy as np
import onnx
import onnx_models
import pytest
from handmade import bound, message
from recording_cuda import ANYWHERE, CUDARuntimeError, Fault, RecordingCuda, RecordingDevice

from inferd._native.batch import Batch, alone
from inferd._native.queue import BatchQueue
from inferd._native.region import Regions
from inferd._native.reply import answer
from inferd._native.stats import ModelStats
from inferd._native.wire import Request
from inferd.batchable import signature_of
from inferd.device import Bound, CpuDevice, Device, SharedMemory
from inferd.errors import InvalidRequest, RegionExists, UnknownRegion
from inferd.instance import Instance, Paces
from inferd.proto import inference_pb2 as pb
from inferd.session import Session, SessionOptions, Slot

FLOATS = 64
ROW = 16  # bytes: four floats


class Lender:
    """A client's memory on a GPU, lent under the name "r", and requests to a model that doubles rows of four floats."""

    def __init__(self, path: Path, device: Device, gpu: RecordingDevice, **options: Any) -> None:
        onnx.save(onnx_models.scale(), path)
        self.cuda, self.gpu = gpu.cuda, gpu
        room = np.zeros(FLOATS + 64, "<f4")
        start = -(room.ctypes.data // 4) % 64  # at an address that a multiple of 256 is
        self.memory = room[start : start + FLOATS]
        self.regions = Regions(10)
        opened = gpu.open_shared(self.cuda.export(self.memory), self.memory.nbytes)
        self.regions.register_gpu("r", opened, gpu.number, self.memory.nbytes)
        self.session = Session(path, SessionOptions(**options), device)
        self.signature = signature_of(self.session, "m", "1", batched=True, max_rows=8)
        self.queue = BatchQueue(self.signature, batch_rows=8, max_queue_rows=100, max_queue_bytes=1 << 20)
        self.slot = Slot(self.session)
        self.instance = Instance(self.queue, self.slot, Paces(self.queue, 8, learn=False), ModelStats([1.0], [1, 8]))

    def asked(self, rows: int, at: int | None, to: int | None) -> Any:
        """A message with its input at one offset of the region, or in itself, and its output at another, or nowhere."""
        made = message(("x", "FP32", [rows, 4], b"" if at is not None else np.arange(4 * rows, dtype="<f4").tobytes()))
        if at is not None:
            del made.raw_input_contents[:]
            self._place(made.inputs[0], at, rows * ROW)
        if to is not None:
            self._place(made.outputs.add(name="y"), to, rows * ROW)
        return made

    @staticmethod
    def _place(tensor: Any, at: int, nbytes: int) -> None:
        tensor.parameters["shared_memory_region"].string_param = "r"
        tensor.parameters["shared_memory_offset"].int64_param = at
        tensor.parameters["shared_memory_byte_size"].int64_param = nbytes

    def run(self, *messages: Any) -> list[Any]:
        """All in one batch: their answers."""
        requests = [bound(self.signature, one, self.regions) for one in messages]
        for request in requests:
            self.queue.put(request, 0)
        batch = self.queue.take(0)
        assert batch is not None
        assert len(batch.members) == len(requests)
        self.cuda.timeline.clear()
        self.instance.run(batch)
        assert [request.error for request in requests] == [None] * len(requests)
        return [pb.ModelInferResponse.FromString(request.answer) for request in requests]

    def did(self) -> list[str]:
        """What the device did, in order."""
        return [what for what, _ in self.cuda.timeline]

    def close(self) -> None:
        region = self.regions.take("r")
        assert region is not None
        self.session.close()
        region.memory.close()
        assert sum(self.cuda.opened.values()) == 0
        assert self.cuda.faults == []


@pytest.fixture
def lender(tmp_path: Path) -> Iterator[Lender]:
    device = RecordingDevice()
    with closing(Lender(tmp_path / "model.onnx", device, device)) as made:
        yield made


def test_a_single_request_is_bound_to_the_clients_memory_and_nothing_is_copied(lender: Lender) -> None:
    lender.memory[:8] = np.arange(8)
    (answer,) = lender.run(lender.asked(2, at=0, to=128))
    assert lender.memory[32:40].tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
    assert answer.raw_output_contents[0] == b""
    assert answer.outputs[0].shape == [2, 4]
    assert lender.did() == ["a run"]


def test_an_output_alone_may_be_there_and_is_not_copied_back_by_way_of_the_host(lender: Lender) -> None:
    lender.run(lender.asked(2, at=None, to=64))
    assert lender.memory[16:24].tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
    assert lender.did() == ["an upload", "a run"]


def test_what_lies_where_no_kernel_could_read_it_is_copied_on_the_device(lender: Lender) -> None:
    lender.memory[1:9] = np.arange(8)
    lender.run(lender.asked(2, at=4, to=132))
    assert lender.memory[33:41].tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
    assert lender.did() == ["an upload", "a copy", "a run", "a download", "a copy"]


def test_what_is_padded_is_copied_and_nothing_beyond_it_is_written(lender: Lender) -> None:
    lender.memory[:] = -1
    lender.memory[:12] = np.arange(12)
    lender.run(lender.asked(3, at=0, to=128))
    assert lender.memory[32:44].tolist() == [2.0 * value for value in range(12)]
    assert set(lender.memory[44:].tolist()) == {-1}


def test_requests_that_share_a_run_each_have_their_rows(lender: Lender) -> None:
    lender.memory[:8] = np.arange(8)
    first, second, third = lender.run(
        lender.asked(1, at=0, to=64), lender.asked(1, at=16, to=None), lender.asked(1, at=None, to=128)
    )
    assert lender.memory[16:20].tolist() == [0, 2, 4, 6]
    assert np.frombuffer(second.raw_output_contents[0], "<f4").tolist() == [8, 10, 12, 14]
    assert lender.memory[32:36].tolist() == [0, 2, 4, 6]
    assert first.raw_output_contents[0] == third.raw_output_contents[0] == b""


def test_they_share_no_run_with_what_is_elsewhere(lender: Lender) -> None:
    for one in (lender.asked(1, at=0, to=None), lender.asked(1, at=None, to=None)):
        lender.queue.put(bound(lender.signature, one, lender.regions), 0)
    batches = [lender.queue.take(0), lender.queue.take(0)]
    assert [len(batch.members) for batch in batches if batch is not None] == [1, 1]


def test_a_cuda_graph_keeps_its_addresses_so_they_are_copied(tmp_path: Path) -> None:
    device = RecordingDevice()
    lender = Lender(tmp_path / "model.onnx", device, device, cuda={"enable_cuda_graph": "1"})
    for value in range(5):
        lender.memory[:8] = np.arange(8) + value
        lender.run(lender.asked(2, at=0, to=128))
        assert lender.memory[32:40].tolist() == [2.0 * (one + value) for one in range(8)]
        assert lender.did() == ["an upload", "a copy", "a run", "a download", "a copy"]
    lender.close()


def test_on_another_gpu_they_are_copied(tmp_path: Path) -> None:
    cuda = RecordingCuda()
    lender = Lender(tmp_path / "model.onnx", RecordingDevice(cuda), RecordingDevice(cuda, device_id=1))
    lender.memory[:8] = np.arange(8)
    lender.run(lender.asked(2, at=0, to=128))
    assert lender.memory[32:40].tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
    assert lender.did() == ["an upload", "a copy", "a run", "a download", "a copy"]
    lender.close()


def test_a_model_on_the_cpu_has_them_copied_and_never_runs_on_the_loop(tmp_path: Path) -> None:
    lender = Lender(tmp_path / "model.onnx", CpuDevice(), RecordingDevice())
    lender.memory[:8] = np.arange(8)
    lender.run(lender.asked(2, at=0, to=128))
    assert lender.memory[32:40].tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
    for size_class in range(20):
        lender.queue.set_short_rows(size_class, 8)
    lender.queue.put(bound(lender.signature, lender.asked(1, at=None, to=None), lender.regions), 0)
    assert lender.queue.take_short(0) is not None
    lender.queue.put(bound(lender.signature, lender.asked(1, at=0, to=None), lender.regions), 0)
    assert lender.queue.take_short(0) is None
    assert lender.queue.take(0) is not None
    lender.close()


@pytest.mark.parametrize(("at", "nbytes"), [(0, 257), (256, 16), (250, 16), (1 << 62, 16)])
def test_a_tensor_lies_wholly_in_its_region(lender: Lender, at: int, nbytes: int) -> None:
    for asked in (lender.asked(1, at=0, to=None), lender.asked(1, at=None, to=0)):
        tensor = asked.outputs[0] if asked.outputs else asked.inputs[0]
        lender._place(tensor, at, nbytes)
        with pytest.raises(InvalidRequest, match=f"is {nbytes} bytes at offset {at}, but region 'r' has 256"):
            bound(lender.signature, asked, lender.regions)


def test_an_output_that_does_not_fit_is_refused_and_nothing_written(lender: Lender) -> None:
    asked = lender.asked(2, at=0, to=128)
    lender._place(asked.outputs[0], 128, 16)
    request: Request = bound(lender.signature, asked, lender.regions)
    lender.queue.put(request, 0)
    batch = lender.queue.take(0)
    assert isinstance(batch, Batch)
    lender.instance.run(batch)
    assert isinstance(request.error, InvalidRequest)
    assert not lender.memory[32:].any()


def test_strings_cannot_be_there() -> None:
    device = RecordingDevice()
    regions = Regions(10)
    memory = np.zeros(64, "u1")
    regions.register_gpu("r", device.open_shared(device.cuda.export(memory), 64), 0, 64)
    signature = handmade.signature_of({"x": ("BYTES", [-1])}, batched=True, max_rows=8)
    asked = message(("x", "BYTES", [1], b""))
    del asked.raw_input_contents[:]
    Lender._place(asked.inputs[0], 0, 8)
    with pytest.raises(InvalidRequest, match="is BYTES, which cannot be in memory of a GPU"):
        bound(signature, asked, regions)


# --- the registry ------------------------------------------------------------------------------------------------


def test_names_are_shared_with_system_memory_and_each_kind_forgets_its_own() -> None:
    regions = Regions(1)
    memory = object()
    regions.register_gpu("r", memory, 3, 64)
    with pytest.raises(RegionExists):
        regions.register_gpu("r", memory, 0, 64)
    regions.unregister("r")
    regions.clear()
    assert regions.all() == []
    (found,) = regions.all(of_gpu=True)
    assert (found.memory, found.device_id, found.byte_size, found.key) == (memory, 3, 64, "")
    taken = regions.take("r")
    assert taken is found
    assert regions.take("r") is None
    with pytest.raises(UnknownRegion):
        regions.find("r")


# --- open, used, closed --------------------------------------------------------------------------------------------


def opened(device: RecordingDevice, nbytes: int = 256) -> SharedMemory:
    kept = np.zeros(256, "u1")
    return device.open_shared(device.cuda.export(kept), nbytes)


def test_it_is_opened_once_and_closed_once_however_often_that_is_asked() -> None:
    device = RecordingDevice()
    memory = opened(device)
    for _ in range(3):
        memory.close()
    assert [what for what, _ in device.cuda.timeline] == ["opened", "closed"]


def test_memory_that_is_smaller_than_said_is_closed_again() -> None:
    device = RecordingDevice()
    with pytest.raises(ValueError, match="257 bytes of an allocation that has 256"):
        opened(device, 257)
    assert [what for what, _ in device.cuda.timeline] == ["opened", "closed"]


def test_a_handle_of_nothing_is_what_cuda_says() -> None:
    device = RecordingDevice()
    with pytest.raises(CUDARuntimeError):
        device.open_shared(bytes(64), 1)
    assert device.cuda.opened == {}


def test_closing_what_is_closed_is_noticed() -> None:
    device = RecordingDevice()
    memory = opened(device)
    memory.close()
    with pytest.raises(Fault, match="closed that is not open"):
        device.cuda.runtime.ipcCloseMemHandle(memory.address)


def test_use_after_the_close_is_noticed() -> None:
    device = RecordingDevice()
    memory = opened(device)
    lane = device.workspace().lane()
    buffer = lane.allocate(64)
    memory.close()
    with lane.turn(), pytest.raises(Fault, match="a copy in memory that was freed"):
        device.cuda.runtime.memcpyAsync(memory.address, memory.address + 64, 8, ANYWHERE, lane._stream_ptr)
    with (
        lane.turn(),
        pytest.raises(Fault, match="a run in memory that was freed"),
        lane.computing(Bound(((memory.address, 64),))),
    ):
        pass
    assert buffer.nbytes == 64


def test_closing_under_a_copy_is_noticed() -> None:
    device = RecordingDevice()
    memory = opened(device)
    lane = device.workspace().lane()
    buffer = lane.allocate(64)
    with lane.turn():
        lane.fetch(memory, 0, buffer, 0, 64)
        with pytest.raises(Fault, match="closed while a copy is under way"):
            memory.close()


def test_a_copy_that_nothing_orders_with_the_run_is_noticed() -> None:
    """As a fetch on a stream of its own would be."""
    device = RecordingDevice()
    memory = opened(device)
    lane = device.workspace().lane()
    buffer = lane.allocate(64)
    other = device.cuda.Stream(non_blocking=True)
    lane.wait()
    with lane.turn():
        device.cuda.runtime.memcpyAsync(buffer.bound_address, memory.address, 64, ANYWHERE, other.ptr)
        with pytest.raises(Fault, match="a run that does not wait for a copy"), lane.computing():
            pass


def test_an_output_whose_shape_only_the_run_can_tell_comes_from_the_host(tmp_path: Path) -> None:
    """ONNX Runtime leaves it in memory of its own."""
    device = RecordingDevice()
    path = tmp_path / "model.onnx"
    onnx.save(onnx_models.nonzero(), path)
    memory = np.zeros(64, "<i8")
    regions = Regions(1)
    opened_memory = device.open_shared(device.cuda.export(memory), memory.nbytes)
    regions.register_gpu("r", opened_memory, 0, memory.nbytes)
    with closing(Session(path, SessionOptions(), device)) as session:
        given, wanted = session.inputs[0], session.outputs[0]
        signature = signature_of(session, "m", "1", batched=False, max_rows=1)
        sent = np.array([0, 3, 0, 5, 0], "<i8")
        asked = message((given.name, given.datatype, [5], sent.tobytes()), wanted=[wanted.name])
        Lender._place(asked.outputs[0], 64, 256)
        batch = alone(signature, bound(signature, asked, regions))
        slot = Slot(session)
        slot.hand_over(answer(batch, slot.run(batch)))
    assert memory[8:10].tolist() == [1, 3]
    assert not memory[10:].any()
    opened_memory.close()
    assert device.cuda.faults == []
