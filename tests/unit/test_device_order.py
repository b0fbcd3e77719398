"""Mistakes in the order of a run, made on purpose in the code that batches go through: the recording notices each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import onnx
import onnx_models
import pytest
from device_contract import answers, fill
from recording_cuda import Fault, RecordingCuda, RecordingDevice, RecordingLane, RecordingWorkspace, Work

from inferd.batchable import signature_of
from inferd.device import Bound, Buffer
from inferd.device.contract import Provider
from inferd.device.cuda import CudaLane, CudaWorkspace
from inferd.errors import InferdError
from inferd.session import Session, SessionOptions, Slot


class Broken(RecordingDevice):
    """A device whose lanes or workspaces make one mistake."""

    def __init__(
        self,
        lane: type[CudaLane] = RecordingLane,
        workspace: type[RecordingWorkspace] = RecordingWorkspace,
    ) -> None:
        super().__init__(RecordingCuda(), lane)
        self._workspace_type = workspace

    def workspace(self, limit_nbytes: int = 0) -> CudaWorkspace:
        made = self._workspace_type(self._cuda, self.number, self._gate, limit_nbytes)
        made.lane_type = self._lane_type
        return made


def batches(tmp_path: Path, device: RecordingDevice, *, between: str = "") -> list[str]:
    """Two batches through a real session and slot; what was found wrong. `between` them a buffer may be freed."""
    path = tmp_path / "model.onnx"
    onnx.save(onnx_models.scale(), path)
    session = Session(path, SessionOptions(), device)
    signature = signature_of(session, "m", "1", batched=True, max_rows=8)
    slot = Slot(session)
    with suppress(InferdError):  # a fault is an error of the run's to the slot
        answers(session, slot, signature, 8, 0)
        if between:
            lane = slot._lane
            with lane.turn():
                lane.free(getattr(slot._buffers, between)[0])
        answers(session, slot, signature, 8, 1)
    with suppress(Exception):
        session.close()
    return device.cuda.faults


def test_the_order_as_it_is_has_no_fault(tmp_path: Path) -> None:
    assert batches(tmp_path, Broken()) == []


# --- a download that does not come after the run -------------------------------------------------------------


class ForgetsThatItComputed(RecordingLane):
    """Its own stream does not wait for the end of the run."""

    @contextmanager
    def computing(self, bound: Bound | None = None) -> Iterator[None]:
        real, self._stream = self._stream, Deaf(self._stream)
        try:
            with super().computing(bound):
                yield
        finally:
            self._stream = real


class Deaf:
    """A stream that waits for no event."""

    def __init__(self, stream: object) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def wait_event(self, event: object) -> None:
        pass


class SaysTooEarlyThatItComputed(RecordingLane):
    """The event that downloads wait for is recorded before the run."""

    @contextmanager
    def computing(self, bound: Bound | None = None) -> Iterator[None]:
        compute = self._workspace.compute
        self._computed.record(compute)
        early = self._computed.work
        with super().computing(bound):
            yield
        waits = self._stream.waits
        waits[:] = [early]


@pytest.mark.parametrize("lane", [ForgetsThatItComputed, SaysTooEarlyThatItComputed])
def test_a_download_before_the_end_of_the_run(tmp_path: Path, lane: type[CudaLane]) -> None:
    assert any("a download that does not wait for a run" in fault for fault in batches(tmp_path, Broken(lane)))


# --- memory that a binding still names --------------------------------------------------------------------------


def test_an_output_freed_while_a_run_is_bound_to_it(tmp_path: Path) -> None:
    assert any("a run in memory that was freed" in fault for fault in batches(tmp_path, Broken(), between="outputs"))


def test_an_input_freed_while_a_run_is_bound_to_it(tmp_path: Path) -> None:
    assert any("an upload in memory that was freed" in fault for fault in batches(tmp_path, Broken(), between="inputs"))


# --- a run somewhere else ---------------------------------------------------------------------------------------


class TellsAnotherStream(RecordingWorkspace):
    """ONNX Runtime computes on a stream that nothing waits for."""

    def providers(self, options: Mapping[str, str], tensorrt: Mapping[str, str] | None = None) -> list[Provider]:
        found = super().providers(options, tensorrt)
        other = self._cuda.Stream(non_blocking=True)
        self.asked = [("CUDAExecutionProvider", {"user_compute_stream": str(other.ptr)}), "CPUExecutionProvider"]
        return found


class TellsTheNullStream(RecordingWorkspace):
    def providers(self, options: Mapping[str, str], tensorrt: Mapping[str, str] | None = None) -> list[Provider]:
        found = super().providers(options, tensorrt)
        self.asked = [("CUDAExecutionProvider", {"user_compute_stream": "0"}), "CPUExecutionProvider"]
        return found


def test_a_run_on_a_stream_that_waits_for_no_upload(tmp_path: Path) -> None:
    faults = batches(tmp_path, Broken(workspace=TellsAnotherStream))
    assert any("a run that does not wait for a" in fault for fault in faults)


def test_a_run_on_the_null_stream(tmp_path: Path) -> None:
    faults = batches(tmp_path, Broken(workspace=TellsTheNullStream))
    assert any("work on the wrong stream: 0 is none of ours" in fault for fault in faults)


# --- memory of the host that is still being copied ---------------------------------------------------------------


def test_a_slot_of_the_host_that_is_written_while_it_is_uploaded() -> None:
    lane = RecordingDevice().workspace().lane()
    buffer = lane.allocate(64)
    with lane.turn():
        fill(buffer, b"a" * 64)
        lane.upload(buffer, 64)
        fill(buffer, b"b" * 64)
        with pytest.raises(Fault, match="the host wrote what an upload still reads"):
            lane.wait()


class DoesNotWaitForTheCopy(RecordingLane):
    """Says that all has happened while copies are under way."""

    def wait(self) -> None:
        pass


def test_a_slot_that_takes_the_next_batch_while_the_last_one_is_copied(tmp_path: Path) -> None:
    faults = batches(tmp_path, Broken(DoesNotWaitForTheCopy))
    assert any("filled again while its last batch was under way" in fault for fault in faults)


# --- a recording that cannot fail would prove nothing -----------------------------------------------------------


def test_work_in_order_by_an_event_or_by_its_stream_is_no_fault() -> None:
    cuda = RecordingCuda()
    cuda.runtime.setDevice(0)
    pool = cuda.MemoryPool()
    memory = pool.malloc(64)
    span = ((memory.ptr, memory.ptr + 64),)
    first, second = cuda.Stream(non_blocking=True), cuda.Stream(non_blocking=True)
    cuda.add(Work("one", (), span), first)
    cuda.add(Work("two", span, span), first)
    event = cuda.Event(block=True)
    event.record(first)
    second.wait_event(event)
    cuda.add(Work("three", span, span), second)
    second.synchronize()
    assert cuda.faults == []


def test_buffers_are_of_the_batch_and_no_more(tmp_path: Path) -> None:
    """What a run is bound to is what it is told to be: the padded rows, at the buffers' start."""
    path = tmp_path / "model.onnx"
    onnx.save(onnx_models.scale(), path)
    device = RecordingDevice()
    with closing(Session(path, SessionOptions(), device)) as session:
        signature = signature_of(session, "m", "1", batched=True, max_rows=8)
        slot = Slot(session)
        answers(session, slot, signature, 3, 0)
        (plan,) = slot._plans.values()
        held: list[Buffer] = [slot._buffers.inputs[0], slot._buffers.outputs[0]]
        assert plan.bound == Bound(((held[0].bound_address, 64),), ((held[1].bound_address, 64),))
