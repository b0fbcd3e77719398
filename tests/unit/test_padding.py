"""Prepared batch sizes: which there are, which one a batch is filled up to, and that all are ready after a load."""

from __future__ import annotations

from pathlib import Path

import onnx_models
import pytest
from recording_cuda import RecordingDevice

from inferd import synthetic
from inferd._native.batch import alone
from inferd.config import Settings
from inferd.device import CpuDevice, Device, Devices
from inferd.loading import Loaded, load
from inferd.repository import Reader
from inferd.session.padding import prepared_rows, prepared_sizes

GRAPHS = (
    'optimization { execution_accelerators { gpu_execution_accelerator { name: "cuda" '
    'parameters { key: "enable_cuda_graph" value: "1" } } } }'
)


@pytest.mark.parametrize(
    ("max_rows", "preferred", "sizes"),
    [
        (1, (), (1,)),
        (8, (), (1, 2, 4, 8)),
        (12, (), (1, 2, 4, 8, 12)),
        (12, (3, 6), (1, 2, 3, 4, 6, 8, 12)),
        (8, (8, 16), (1, 2, 4, 8)),
        (6, (6, 4), (1, 2, 4, 6)),
    ],
)
def test_sizes_are_powers_of_two_the_largest_and_the_preferred(
    max_rows: int, preferred: tuple[int, ...], sizes: tuple[int, ...]
) -> None:
    assert prepared_sizes(max_rows, preferred) == sizes
    for rows in range(1, max_rows + 1):
        assert prepared_rows(rows, sizes) == min(size for size in sizes if size >= rows)
    assert prepared_rows(max_rows + 1, sizes) == max_rows + 1


def placed(tmp_path: Path, device: Device, config: str) -> Loaded:
    onnx_models.write(tmp_path, "m", onnx_models.scale(), config=f"max_batch_size: 12 {config}")
    directory = Reader(tmp_path).scan().models[0]
    devices = Devices(gpus=(device,)) if isinstance(device, RecordingDevice) else Devices()
    settings = Settings.model_validate({"warmup": {"budget_ms": 60_000}})
    return load(directory.decl, directory.versions[0], settings, 1, devices)


PREFERRED = "dynamic_batching { preferred_batch_size: [ 3, 6 ] }"


def test_a_gpu_pads_to_a_preferred_size_where_that_is_the_next(tmp_path: Path) -> None:
    made = placed(tmp_path, RecordingDevice(), PREFERRED)
    slot = made.slots[0]
    ran = {}
    for rows in range(1, 13):
        batch = alone(made.signature, synthetic.request(made.signature, made.session.inputs, rows, 4))
        ran[rows] = slot._run_rows(batch)
    assert ran == {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 6, 7: 8, 8: 8, 9: 12, 10: 12, 11: 12, 12: 12}
    made.close()


def test_every_size_is_ready_in_every_slot_after_the_load(tmp_path: Path) -> None:
    device = RecordingDevice()
    made = placed(tmp_path, device, PREFERRED)
    for slot in made.slots:
        assert sorted(slot._plans) == [1, 2, 3, 4, 6, 8, 12]
    made.close()
    assert device.cuda.faults == []


def test_every_graph_is_recorded_at_the_load_and_none_in_service(tmp_path: Path) -> None:
    device = RecordingDevice()
    made = placed(tmp_path, device, f"{PREFERRED} {GRAPHS}")
    for slot in made.slots:
        assert {rows: plan.records for rows, plan in slot._plans.items()} == dict.fromkeys((1, 2, 3, 4, 6, 8, 12), 0)
    made.close()
    assert device.cuda.faults == []


def test_a_cpu_pads_nothing(tmp_path: Path) -> None:
    made = placed(tmp_path, CpuDevice(), PREFERRED)
    batch = alone(made.signature, synthetic.request(made.signature, made.session.inputs, 5, 4))
    assert made.slots[0]._run_rows(batch) == 5
    made.close()
