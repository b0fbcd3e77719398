"""A GPU that fails, or has too little memory, under batches that run: over a recording of CuPy's calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_models
import pytest
from recording_cuda import RecordingCuda, RecordingDevice

from inferd._native.bind import bind
from inferd._native.queue import BatchQueue
from inferd._native.stats import ModelStats
from inferd._native.wire import Request, decode
from inferd.app import App
from inferd.batchable import signature_of
from inferd.config import Settings
from inferd.device import Devices
from inferd.errors import DeviceLost
from inferd.health import Status
from inferd.instance import Instance, Paces
from inferd.models import Model, State
from inferd.proto import inference_pb2 as pb
from inferd.session import Session, SessionOptions, Slot


class Batched:
    """Requests of one row of four floats, all of which leave as one batch."""

    def __init__(self, path: Path, device: RecordingDevice, count: int) -> None:
        onnx.save(onnx_models.scale(), path)
        self.session = Session(path, SessionOptions(), device)
        signature = signature_of(self.session, "m", "1", batched=True, max_rows=64)
        self.queue = BatchQueue(signature, batch_rows=64, max_queue_rows=1000, max_queue_bytes=1 << 20)
        stats = ModelStats([1.0], [1, 8])
        self.instance = Instance(self.queue, Slot(self.session), Paces(self.queue, 64, learn=False), stats)
        self.requests: list[Request] = []
        for row in range(count):
            message = pb.ModelInferRequest(model_name="m")
            message.inputs.add(name=self.session.inputs[0].name, datatype="FP32", shape=[1, 4])
            message.raw_input_contents.append(np.full(4, row, "<f4").tobytes())
            request = decode(message.SerializeToString())
            bind(signature, request, None)
            self.queue.put(request, now_ns=0)
            self.requests.append(request)

    def run(self) -> None:
        batch = self.queue.take(0)
        assert batch is not None
        assert len(batch.members) == len(self.requests)
        self.instance.run(batch)


def test_a_batch_for_which_there_is_no_memory_runs_in_halves_until_it_fits(tmp_path: Path) -> None:
    # 37 rows of 16 bytes are padded to 64, so each of the two buffers takes 1024 bytes; one for up to 32 takes 512.
    device = RecordingDevice(RecordingCuda(room=1024))
    batched = Batched(tmp_path / "model.onnx", device, 37)
    batched.run()
    for row, request in enumerate(batched.requests):
        assert request.error is None
        answer = pb.ModelInferResponse.FromString(request.answer)
        assert np.frombuffer(answer.raw_output_contents[0], "<f4").tolist() == [2.0 * row] * 4
    runs = sum(what == "a run" for what, _ in device.cuda.timeline)
    assert runs == 2
    assert device.cuda.faults == []
    batched.session.close()


def test_every_member_is_told_to_go_elsewhere_when_the_gpu_is_lost_and_none_runs_again(tmp_path: Path) -> None:
    told: list[str] = []
    device = RecordingDevice(on_lost=told.append)
    batched = Batched(tmp_path / "model.onnx", device, 3)
    device.cuda.error = 700
    batched.run()
    for request in batched.requests:
        assert isinstance(request.error, DeviceLost)
        assert str(request.error) == "the GPU that model 'm' ran on has failed; try another replica"
    assert len(told) == 1


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    onnx_models.write(tmp_path, "m", onnx_models.scale())
    onnx_models.write(tmp_path, "on_cpu", onnx_models.scale(), config="instance_group { kind: KIND_CPU }")
    settings = Settings.model_validate(
        {
            "models": {"path": tmp_path},
            "grpc": {"port": 0},
            "http": {"port": 0},
            "metrics": {"port": 0},
            "host": "127.0.0.1",
        }
    )
    devices = Devices(gpus=(RecordingDevice(),))
    monkeypatch.setattr("inferd.app.open_devices", lambda *asked: devices)
    return App(settings)


def test_a_lost_gpu_takes_its_models_and_readiness_at_once_and_liveness_with_its_context(app: App) -> None:
    gpu = app.devices.gpus[0]
    assert isinstance(gpu, RecordingDevice)
    seen: list[object] = []

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.005)

    async def work() -> None:
        running = asyncio.create_task(app.run())
        await until(lambda: app.board.status("readiness") is Status.SERVING)
        seen.append(app.board.death_reason())
        gpu.cuda.error = 719
        await asyncio.to_thread(gpu.failure_of, RuntimeError("CUDA failure 719: unspecified launch failure"))
        await until(lambda: app.board.status("readiness") is Status.NOT_SERVING)
        seen.extend((app.board.status("m"), app.board.status("on_cpu"), app.board.death_reason()))
        model: Model = app.models.find("m", "")
        seen.append(model.state is State.FAILED and "launch failure" in model.reason)
        with pytest.raises(DeviceLost):
            model.answering()
        app._stop.set()
        await running

    asyncio.run(work())
    assert seen[:3] == [None, Status.NOT_SERVING, Status.SERVING]
    assert str(seen[3]).startswith("GPU 0: an unspecified launch failure")
    assert seen[4] is True
