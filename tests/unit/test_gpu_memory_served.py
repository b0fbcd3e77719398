"""A server that has a GPU, as a recording of CuPy's calls, and clients that lend it memory: both transports."""

from __future__ import annotations

import asyncio
import base64
import ctypes
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_models
import pytest
import tritonclient.grpc as triton
from recording_cuda import RecordingDevice
from tritonclient.utils import InferenceServerException

from inferd.app import App
from inferd.config import Settings
from inferd.device import Devices
from inferd.device.cuda import CudaWorkspace
from inferd.health import Status

WAIT_S = 30
NBYTES = 256


class Served:
    """A server in this process, on a thread of its own."""

    def __init__(self, app: App, device: RecordingDevice) -> None:
        self.app, self.device = app, device
        self.memory = np.zeros(NBYTES // 4 + 64, "<f4")[: NBYTES // 4]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))

    async def _run(self) -> None:
        # Signals are for the main thread's loop.
        self._loop.add_signal_handler = lambda *_: None  # type: ignore[method-assign,assignment]
        await self.app.run()

    def __enter__(self) -> Served:
        self._thread.start()
        self.until(lambda: self.app.board.status("readiness") is Status.SERVING)
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self.app._stop.set)
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()
        self._loop.close()

    @staticmethod
    def until(condition: Callable[[], bool]) -> None:
        """Poll: what is waited for happens on other threads."""
        never = threading.Event()
        for _ in range(WAIT_S * 200):
            if condition():
                return
            never.wait(0.005)
        raise AssertionError("it did not happen")

    def client(self) -> triton.InferenceServerClient:
        assert self.app._transport is not None
        return triton.InferenceServerClient(f"127.0.0.1:{self.app._transport.port}")

    def handle(self) -> bytes:
        """As the client's library gives it: in base64."""
        return base64.b64encode(self.device.cuda.export(self.memory))

    def opens(self) -> list[str]:
        return [what for what, _ in self.device.cuda.timeline if what in ("opened", "closed")]


@pytest.fixture(params=["native", "grpcio"])
def served(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    onnx_models.write(tmp_path, "m", onnx_models.scale(), config="max_batch_size: 8 instance_group { kind: KIND_GPU }")
    settings = Settings.model_validate(
        {
            "models": {"path": tmp_path},
            "transport": request.param,
            "grpc": {"port": 0},
            "http": {"port": 0},
            "metrics": {"port": 0},
            "host": "127.0.0.1",
            "shared_memory": {"enabled": True},
            "drain": {"lame_duck_ms": 0},
        }
    )
    device = RecordingDevice()
    monkeypatch.setattr("inferd.app.open_devices", lambda *asked: Devices(gpus=(device,)))
    with Served(App(settings), device) as made:
        yield made
    assert device.cuda.faults == []


def lent(rows: int, at: int, to: int) -> tuple[list[Any], list[Any]]:
    given = triton.InferInput("x", [rows, 4], "FP32")
    given.set_shared_memory("r", rows * 16, at)
    wanted = triton.InferRequestedOutput("y")
    wanted.set_shared_memory("r", rows * 16, to)
    return [given], [wanted]


def refused(call: Callable[..., Any], *args: Any) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as caught:
        call(*args)
    return str(caught.value.status()).removeprefix("StatusCode."), str(caught.value.message())


def test_a_client_lends_memory_infers_in_it_and_takes_it_back(served: Served) -> None:
    client = served.client()
    assert "cuda_shared_memory" in client.get_server_metadata().extensions
    client.register_cuda_shared_memory("r", served.handle(), 0, NBYTES)
    region = client.get_cuda_shared_memory_status().regions["r"]
    assert (region.name, region.device_id, region.byte_size) == ("r", 0, NBYTES)
    assert not client.get_system_shared_memory_status().regions
    for rows in (1, 2, 3):
        served.memory[: 4 * rows] = np.arange(4 * rows) + rows
        inputs, outputs = lent(rows, 0, 128)
        answer = client.infer("m", inputs, outputs=outputs).get_response()
        assert served.memory[32 : 32 + 4 * rows].tolist() == [2.0 * (one + rows) for one in range(4 * rows)]
        assert answer.raw_output_contents[0] == b""
    client.unregister_system_shared_memory()
    assert served.opens() == ["opened"]
    client.unregister_cuda_shared_memory("r")
    assert served.opens() == ["opened", "closed"]
    inputs, outputs = lent(1, 0, 128)
    assert refused(client.infer, "m", inputs)[0] == "NOT_FOUND"
    client.unregister_cuda_shared_memory("r")
    client.unregister_cuda_shared_memory()
    client.close()


def test_what_cannot_be_registered_is_refused_and_leaves_nothing_open(served: Served) -> None:
    client = served.client()
    register = client.register_cuda_shared_memory
    cases = [
        (("r", served.handle(), 1, NBYTES), "INVALID_ARGUMENT", "region 'r' is on GPU 1; there are 0 here"),
        (("r", base64.b64encode(bytes(63)), 0, NBYTES), "INVALID_ARGUMENT", "is 63 bytes; a CUDA IPC handle is 64"),
        (("r", base64.b64encode(bytes(64)), 0, NBYTES), "INVALID_ARGUMENT", "names no memory of GPU 0"),
        (("r", served.handle(), 0, NBYTES + 1), "INVALID_ARGUMENT", "byte_size reaches past the end of its memory"),
        (("r", served.handle(), 0, 0), "INVALID_ARGUMENT", "has a byte_size of 0"),
        (("", served.handle(), 0, NBYTES), "INVALID_ARGUMENT", "a name of a region is 1 to 256"),
    ]
    for args, code, text in cases:
        found = refused(register, *args)
        assert found[0] == code
        assert text in found[1]
    register("r", served.handle(), 0, NBYTES)
    assert refused(register, "r", served.handle(), 0, NBYTES)[0] == "ALREADY_EXISTS"
    assert refused(client.get_cuda_shared_memory_status, "other")[0] == "NOT_FOUND"
    assert refused(client.get_system_shared_memory_status, "r")[0] == "NOT_FOUND"
    client.unregister_cuda_shared_memory()
    assert sum(served.device.cuda.opened.values()) == 0
    client.close()


def test_it_is_taken_back_only_when_no_request_uses_it_any_more(served: Served) -> None:
    client, other = served.client(), served.client()
    client.register_cuda_shared_memory("r", served.handle(), 0, NBYTES)
    served.memory[:4] = np.arange(4)
    loaded = served.app.models.find("m", "").loaded
    assert loaded is not None
    inputs, outputs = lent(1, 0, 128)
    answers: list[Any] = []
    taken = threading.Event()

    def take_back() -> None:
        other.unregister_cuda_shared_memory("r")
        taken.set()

    regions = served.app.service.regions
    assert regions is not None
    workspace = loaded.session._workspace
    assert isinstance(workspace, CudaWorkspace)
    with workspace.turn:  # no run gets beyond this
        client.async_infer("m", inputs, lambda result, error: answers.append((result, error)), outputs=outputs)
        served.until(lambda: served.app.models.find("m", "").stats.in_flight == 1)
        thread = threading.Thread(target=take_back)
        thread.start()
        served.until(lambda: not regions.all(of_gpu=True))
        assert refused(client.infer, "m", inputs)[0] == "NOT_FOUND"
        assert not taken.is_set()
        assert served.opens() == ["opened"]
    thread.join(WAIT_S)
    assert taken.is_set()
    served.until(lambda: len(answers) == 1)
    assert answers[0][1] is None
    assert served.memory[32:36].tolist() == [0, 2, 4, 6]
    assert served.opens() == ["opened", "closed"]
    client.close()
    other.close()


def test_what_is_not_taken_back_is_closed_at_the_end(served: Served) -> None:
    client = served.client()
    for name in ("r", "s"):
        client.register_cuda_shared_memory(name, served.handle(), 0, NBYTES)
    client.close()
    served.__exit__()
    assert sum(served.device.cuda.opened.values()) == 0
    assert served.opens().count("closed") == 2


def test_the_clients_library_sends_the_handles_own_bytes(served: Served) -> None:
    """From the structure that CUDA fills in for it to the bytes that CuPy is given."""
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="pip install cuda-python")
    library = pytest.importorskip("tritonclient.utils.cuda_shared_memory")
    made = runtime.cudaIpcMemHandle_t()
    ours = served.device.cuda.export(served.memory)
    ctypes.memmove(made.getPtr(), ours, 64)
    client = served.client()
    client.register_cuda_shared_memory("r", library.get_raw_handle(SimpleNamespace(_cuda_shm_handle=made)), 0, NBYTES)
    assert served.opens() == ["opened"]
    client.unregister_cuda_shared_memory("r")
    client.close()
