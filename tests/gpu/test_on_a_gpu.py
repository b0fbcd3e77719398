"""What only a GPU can show: the contract, memory that comes back, copies that overlap runs. `pytest -m gpu`."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import onnx
import onnx_models
import pytest
from device_contract import MAX_ROWS, DeviceContract, answers

from inferd.batchable import signature_of
from inferd.device import CudaDevice, Device, open_devices
from inferd.session import Session, SessionOptions, Slot, runtime_build

pytestmark = pytest.mark.gpu
MIB = 1 << 20
LOADS = 50
COPY_NBYTES = 64 * MIB


@pytest.fixture(scope="module")
def gpu() -> CudaDevice:
    """The first one; a machine without fails here and says what it lacks."""
    return open_devices("cuda", runtime_build()).gpus[0]


@pytest.fixture
def cupy(gpu: CudaDevice) -> Any:
    return pytest.importorskip("cupy")


class TestCuda(DeviceContract):
    @pytest.fixture
    def device(self, gpu: CudaDevice) -> Device:
        return gpu

    def test_a_cuda_graph_answers_as_the_first_run_did(self, device: Device, tmp_path: Path) -> None:
        path = tmp_path / "model.onnx"
        onnx.save(onnx_models.scale(), path)
        with closing(Session(path, SessionOptions(cuda={"enable_cuda_graph": "1"}), device)) as session:
            signature = signature_of(session, "m", "1", batched=True, max_rows=MAX_ROWS)
            slots = Slot(session), Slot(session)
            for rows in (1, 3, MAX_ROWS):
                first = answers(session, slots[0], signature, rows, rows)[0].tolist()
                for slot in slots:
                    for _ in range(5):
                        assert answers(session, slot, signature, rows, rows)[0].tolist() == first


def test_fifty_loads_give_back_what_they_took(gpu: CudaDevice, cupy: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(onnx_models.mlp(), path)

    def load() -> None:
        with closing(Session(path, SessionOptions(), gpu)) as session:
            signature = signature_of(session, "m", "1", batched=True, max_rows=64)
            for slot in (Slot(session), Slot(session)):
                answers(session, slot, signature, 64, 0)

    for _ in range(3):  # the context and the libraries' own memory come with the first
        load()
    before, _ = cupy.cuda.runtime.memGetInfo()
    for _ in range(LOADS):
        load()
    after, _ = cupy.cuda.runtime.memGetInfo()
    assert before - after < 8 * MIB


def test_a_copy_to_one_slot_overlaps_what_another_computes(gpu: CudaDevice, cupy: Any) -> None:
    """On the device's own clock: the copy of the second lane begins before the run of the first has ended."""
    workspace = gpu.workspace()
    started, ended, copied = (cupy.cuda.Event() for _ in range(3))
    source = 'extern "C" __global__ void spin(long long n) { long long t = clock64(); while (clock64() - t < n); }'
    spin = cupy.RawKernel(source, "spin")
    with closing(workspace.lane()) as first, closing(workspace.lane()) as second:
        big = second.allocate(COPY_NBYTES)
        second.wait()
        with first.turn(), first.computing():
            started.record(workspace.compute)
            with workspace.compute:
                spin((1,), (1,), (2_000_000_000,))
            ended.record(workspace.compute)
        second.upload(big, COPY_NBYTES)
        copied.record(second._stream)
        second.wait()
        first.settle()
    assert cupy.cuda.get_elapsed_time(started, copied) < cupy.cuda.get_elapsed_time(started, ended)
    workspace.close()
