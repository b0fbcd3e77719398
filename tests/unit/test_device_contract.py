"""The device contract where there is no GPU: on the CPU, and on the code for GPUs over a recording of CuPy's calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import onnx
import onnx_models
import pytest
from device_contract import DeviceContract, answers, fill
from recording_cuda import Fault, RecordingCuda, RecordingDevice, RecordingLane

from inferd.batchable import signature_of
from inferd.device import Bound, Buffer, CpuDevice, Device
from inferd.device.cuda import DEVICE_TO_HOST, HOST_TO_DEVICE, CudaLane
from inferd.errors import DeviceLost, OutOfDeviceMemory, RunFailed
from inferd.session import Session, SessionOptions, Slot
from inferd.session.session import RECORDING_RUNS


class TestCpu(DeviceContract):
    @pytest.fixture(params=[False, True], ids=["as they are", "padded"])
    def device(self, request: pytest.FixtureRequest) -> Device:
        return CpuDevice(pads=request.param)


class TestCudaOverARecording(DeviceContract):
    @pytest.fixture
    def device(self) -> Iterator[Device]:
        made = RecordingDevice()
        yield made
        assert made.cuda.faults == []

    @pytest.fixture
    def look(self, device: RecordingDevice) -> Callable[[Buffer], None]:
        return lambda buffer: device.cuda.host_reads(buffer.host_address, buffer.nbytes)

    def test_a_limit_holds_for_all_lanes_of_a_workspace(self, device: RecordingDevice) -> None:
        workspace = device.workspace(limit_nbytes=1 << 20)
        with closing(workspace.lane()) as first, closing(workspace.lane()) as second:
            kept = first.allocate(768 << 10)
            with pytest.raises(MemoryError):
                second.allocate(512 << 10)
            first.free(kept)
            second.allocate(512 << 10)

    def test_fifty_loads_leave_nothing_behind(self, device: RecordingDevice, tmp_path: Path) -> None:
        path = tmp_path / "model.onnx"
        onnx.save(onnx_models.mlp(), path)
        for _ in range(50):
            session = Session(path, SessionOptions(), device)
            signature = signature_of(session, "m", "1", batched=True, max_rows=8)
            slots = [Slot(session), Slot(session)]
            for slot in slots:
                answers(session, slot, signature, 8, 0)
            assert device.cuda.taken("device") > 0
            session.close()
            assert device.cuda.taken("device") == device.cuda.taken("pinned") == 0


def test_each_prepared_size_of_each_slot_is_recorded_once_with_the_device_to_itself(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(onnx_models.mlp(), path)
    device = RecordingDevice()
    captures: list[int] = []
    real = device._gate.capture

    @contextmanager
    def capture() -> Iterator[None]:
        with real():
            captures.append(device._gate._runs)
            yield

    device._gate.capture = capture  # type: ignore[method-assign]
    with closing(Session(path, SessionOptions(cuda={"enable_cuda_graph": "1"}), device)) as session:
        signature = signature_of(session, "m", "1", batched=True, max_rows=8)
        for slot in (Slot(session), Slot(session)):
            answers(session, slot, signature, 8, 0)  # the largest first, so that no buffer is replaced later
            for rows in (1, 2, 3, 4, 5, 6, 7, 8) * 3:
                answers(session, slot, signature, rows, 0)
    # Sizes 1, 2, 4 and 8 in each of two slots.
    assert captures == [0] * (RECORDING_RUNS * 4 * 2)
    assert device.cuda.faults == []


# --- each mistake is noticed ---------------------------------------------------------------------------------


def turn(device: RecordingDevice) -> None:
    """Two batches as a slot runs them."""
    with closing(device.workspace().lane()) as lane:
        buffer = lane.allocate(64)
        for content in (b"a" * 64, b"b" * 64):
            with lane.turn():
                fill(buffer, content)
                lane.upload(buffer, 64)
                with lane.computing():
                    pass
                lane.download(buffer, 64)
                lane.wait()
                device.cuda.host_reads(buffer.host_address, 64)


class RunsAtOnce(RecordingLane):
    """Computes without waiting for the uploads' event."""

    @contextmanager
    def computing(self, bound: Bound | None = None) -> Iterator[None]:
        self._uploaded = self._cuda.Event(block=True)
        self._uploaded.record(self._workspace.compute)
        real, self._stream = self._stream, self._workspace.compute
        try:
            with super().computing(bound):
                yield
        finally:
            self._stream = real


class NeverWaits(RecordingLane):
    def wait(self) -> None:
        pass


class CopiesBackAtOnce(RecordingLane):
    """Its downloads do not wait for what computes."""

    def download(self, buffer: Buffer, nbytes: int) -> None:
        own = self._cuda.Stream(non_blocking=True)
        self._runtime.memcpyAsync(buffer.host_address, buffer.bound_address, nbytes, DEVICE_TO_HOST, own.ptr)


class UsesTheNullStream(RecordingLane):
    def upload(self, buffer: Buffer, nbytes: int) -> None:
        self._runtime.memcpyAsync(buffer.bound_address, buffer.host_address, nbytes, HOST_TO_DEVICE, 0)


class UsesAnotherStream(RecordingLane):
    def upload(self, buffer: Buffer, nbytes: int) -> None:
        other = self._cuda.Stream(non_blocking=True)
        self._runtime.memcpyAsync(buffer.bound_address, buffer.host_address, nbytes, HOST_TO_DEVICE, other.ptr)


def test_the_sequence_without_a_mistake_is_none() -> None:
    device = RecordingDevice()
    turn(device)
    assert device.cuda.faults == []


@pytest.mark.parametrize(
    ("lane_type", "said"),
    [
        (RunsAtOnce, "a run that does not wait for an? (upload|memset)"),
        (CopiesBackAtOnce, "a download that does not wait for a (run|memset)"),
        (UsesTheNullStream, "work on the wrong stream"),
        (UsesAnotherStream, "an upload that does not wait for a memset"),
    ],
)
def test_what_is_out_of_order_is_noticed(lane_type: type[CudaLane], said: str) -> None:
    with pytest.raises(Fault, match=said):
        turn(RecordingDevice(lane_type=lane_type))


def test_reading_before_the_end_is_noticed() -> None:
    with pytest.raises(Fault, match="the host reads what a download still writes"):
        turn(RecordingDevice(lane_type=NeverWaits))


def test_a_slot_that_is_filled_again_too_early_is_noticed() -> None:
    lane = RecordingDevice().workspace().lane()
    buffer = lane.allocate(64)
    with lane.turn():
        lane.upload(buffer, 64)
        with pytest.raises(Fault, match="filled again while its last batch was under way"):
            lane.upload(buffer, 64)


def test_memory_freed_while_it_is_copied_is_noticed() -> None:
    device = RecordingDevice(lane_type=NeverWaits)
    lane = device.workspace().lane()
    buffer = lane.allocate(64)
    with lane.turn():
        lane.upload(buffer, 64)
        lane.free(buffer)
    assert any("memory freed while an upload is under way" in fault for fault in device.cuda.faults)


def test_memory_freed_while_it_is_bound_is_noticed() -> None:
    lane = RecordingDevice().workspace().lane()
    buffer = lane.allocate(64)
    with lane.turn():
        lane.free(buffer)
        with pytest.raises(Fault, match="in memory that was freed"):
            lane.upload(buffer, 64)


def test_a_thread_that_did_not_say_which_gpu_is_noticed() -> None:
    lane = RecordingDevice().workspace().lane()
    buffer = lane.allocate(64)
    found: list[BaseException] = []

    def work() -> None:
        try:
            lane.upload(buffer, 64)
        except Fault as fault:
            found.append(fault)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "not told which GPU" in str(found[0])


# --- the device's own failures -----------------------------------------------------------------------------------


def test_too_little_memory_is_told_from_other_failures(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(onnx_models.scale(), path)
    device = RecordingDevice(RecordingCuda(room=2048))
    with closing(Session(path, SessionOptions(), device)) as session:
        signature = signature_of(session, "m", "1", batched=True, max_rows=1024)
        slot = Slot(session)
        with pytest.raises(OutOfDeviceMemory):
            answers(session, slot, signature, 1000, 0)
        assert len(answers(session, slot, signature, 2, 0)[0]) == 8
    assert device.cuda.faults == []


@pytest.mark.parametrize("code", [700, 719])
def test_an_error_that_stays_is_told_once_and_the_context_is_asked(tmp_path: Path, code: int) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(onnx_models.scale(), path)
    told: list[str] = []
    device = RecordingDevice(on_lost=told.append)
    session = Session(path, SessionOptions(), device)
    signature = signature_of(session, "m", "1", batched=True, max_rows=8)
    slot = Slot(session)
    answers(session, slot, signature, 2, 0)
    device.cuda.error = code
    for _ in range(2):
        with pytest.raises(DeviceLost, match=f"CUDA error {code}"):
            answers(session, slot, signature, 2, 0)
    assert len(told) == 1
    assert device.context_lost


def test_a_sticky_error_in_words_is_known_and_a_context_that_answers_is_not_lost() -> None:
    device = RecordingDevice()
    found = device.failure_of(RuntimeError("Non-zero status: CUDA failure 700: an illegal memory access ; GPU=0"))
    assert isinstance(found, DeviceLost)
    assert not device.context_lost
    assert device.failure_of(RunFailed("shapes do not match")) is None
    assert isinstance(
        device.failure_of(RuntimeError("Failed to allocate memory for requested buffer")), OutOfDeviceMemory
    )
