"""What only a GPU can show: the contract, memory that comes back, copies that overlap runs. `pytest -m gpu`."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import onnx
import onnx_models
import pytest
from device_contract import MAX_ROWS, DeviceContract, answers
from handmade import bound, message

from inferd._native.batch import alone
from inferd._native.region import Regions
from inferd._native.reply import answer
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


LENDER = """
import sys
import cupy
memory = cupy.zeros(64, "f4")
memory[:8] = cupy.arange(8)
cupy.cuda.runtime.deviceSynchronize()
print(cupy.cuda.runtime.ipcGetMemHandle(memory.data.ptr).hex(), flush=True)
sys.stdin.readline()
print(*memory.get().tolist(), flush=True)
sys.stdin.readline()
"""


def test_memory_of_another_process_is_run_in_and_its_bounds_are_known(gpu: CudaDevice, tmp_path: Path) -> None:
    # A pool of CuPy's own would hand out a part of a larger allocation, and a handle names the whole of it.
    script = LENDER.replace("import cupy\n", "import cupy\ncupy.cuda.set_allocator(None)\n")
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as lender:
        assert lender.stdin is not None
        assert lender.stdout is not None
        handle = bytes.fromhex(lender.stdout.readline())
        with pytest.raises(ValueError, match="of an allocation that has"):
            gpu.open_shared(handle, 1 << 40)
        path = tmp_path / "model.onnx"
        onnx.save(onnx_models.scale(), path)
        regions = Regions(1)
        memory = gpu.open_shared(handle, 256)
        regions.register_gpu("r", memory, gpu.number, 256)
        with closing(Session(path, SessionOptions(), gpu)) as session:
            signature = signature_of(session, "m", "1", batched=True, max_rows=8)
            slot = Slot(session)
            asked = message(("x", "FP32", [2, 4], None), wanted=["y"])
            for tensor, at in ((asked.inputs[0], 0), (asked.outputs[0], 128)):
                tensor.parameters["shared_memory_region"].string_param = "r"
                tensor.parameters["shared_memory_offset"].int64_param = at
                tensor.parameters["shared_memory_byte_size"].int64_param = 32
            batch = alone(signature, bound(signature, asked, regions))
            slot.hand_over(answer(batch, slot.run(batch)))
        lender.stdin.write("\n")
        lender.stdin.flush()
        found = [float(one) for one in lender.stdout.readline().split()]
        memory.close()
        lender.stdin.write("\n")
        lender.stdin.flush()
    assert found[32:40] == [0, 2, 4, 6, 8, 10, 12, 14]


def test_the_benchmarks_run_to_their_end(gpu: CudaDevice, tmp_path: Path) -> None:
    onnx_models.write(tmp_path / "repository", "scale", onnx_models.scale())
    found = tmp_path / "gpu.json"
    given = ("--repository", tmp_path / "repository", "--gpu", gpu.number, "--seconds=0.5", "--json", found)
    subprocess.run([sys.executable, "-m", "bench", "gpu", *map(str, given)], check=True, timeout=300)
    assert json.loads(found.read_text())["throughput"]
