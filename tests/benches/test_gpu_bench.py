"""`python -m bench gpu`: all that it measures, over a recording of CuPy's calls, and what it says without a GPU."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import onnx_models
import pytest
from click.testing import CliRunner
from recording_cuda import RecordingDevice

import bench.__main__
from bench.gpu import command, measure
from bench.gpu.timeline import SLOTS, Span, overlap, timeline
from inferd.device import CpuDevice, Device, Devices
from inferd.errors import StartError
from inferd.session import SessionOptions

BATCHES = 5


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "COPY_NBYTES", (4096,))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    onnx_models.write(folder, "scale", onnx_models.scale())
    onnx_models.write(folder, "strings", onnx_models.identity("BYTES", [2]))
    return folder


def host(device: RecordingDevice) -> Any:
    """Pageable memory that the recording knows of."""

    def made(nbytes: int) -> tuple[int, Any]:
        address, owner = measure.pageable(nbytes)
        device.cuda.live[address] = address + nbytes
        return address, owner

    return made


@pytest.mark.parametrize("kind", ["recording", "cpu"])
def test_the_timeline_has_every_copy_and_run_of_both_slots_in_order(repository: Path, kind: str) -> None:
    device: Device = RecordingDevice() if kind == "recording" else CpuDevice()
    spans = timeline(repository / "scale" / "1" / "model.onnx", device, 8, BATCHES, SessionOptions())
    assert len(spans) == 3 * BATCHES * SLOTS
    for slot in range(SLOTS):
        own = sorted((one for one in spans if one["slot"] == slot), key=lambda one: one["end_ms"])
        assert [one["what"] for one in own] == ["upload", "run", "download"] * BATCHES
    assert all(one["start_ms"] <= one["end_ms"] for one in spans)
    assert 0 <= overlap(spans) <= 1
    if isinstance(device, RecordingDevice):
        assert device.cuda.faults == []


def span(what: str, slot: int, start: float, end: float) -> Span:
    return Span(what=what, slot=slot, start_ms=start, end_ms=end)


def test_overlap_is_the_part_of_copies_that_lies_beside_runs_of_others() -> None:
    run = span("run", 0, 10, 20)
    assert overlap([run, span("upload", 1, 12, 16)]) == 1
    assert overlap([run, span("upload", 1, 18, 22), span("download", 1, 20, 24)]) == 0.25
    assert overlap([run, span("upload", 0, 12, 16)]) == 0
    assert overlap([run]) == 0


def test_everything_is_measured_and_shown(repository: Path) -> None:
    device = RecordingDevice()
    said: list[str] = []
    found = measure.measure(device, CpuDevice(), command.models(repository), 0.01, said=said.append, host=host(device))
    assert [(one["memory"], one["nbytes"]) for one in found["copies"]] == [
        (memory, nbytes) for nbytes in measure.COPY_NBYTES for memory in ("pinned", "pageable")
    ]
    of_scale = [one for one in found["throughput"] if one["model"] == "scale"]
    assert [(one["rows"], one["device"], one["graphs"]) for one in of_scale] == [
        (rows, where, graphs)
        for rows in measure.ROWS
        for where, graphs in (("cpu", False), ("gpu 0", False), ("gpu 0", True))
    ]
    assert all(one["rows_per_s"] > 0 and math.isfinite(one["rows_per_s"]) for one in found["throughput"])
    assert {one["rows"] for one in found["throughput"] if one["model"] == "strings"} == {1}
    assert [one["model"] for one in found["overlap"]] == ["scale"]
    assert [table.row_count for table in command.tables(found)] == [len(found["throughput"]), 2, 1]
    json.dumps(found)
    assert device.cuda.faults == []


def test_a_model_without_a_cuda_graph_is_measured_without(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = measure.throughput

    def without(*args: Any) -> measure.Throughput:
        if args[-1].cuda_graphs:
            raise RuntimeError("cannot be captured")
        return real(*args)

    monkeypatch.setattr(measure, "throughput", without)
    said: list[str] = []
    device = RecordingDevice()
    found = measure.measure(
        device, CpuDevice(), command.models(repository)[:1], 0.01, said=said.append, host=host(device)
    )
    assert {one["graphs"] for one in found["throughput"]} == {False}
    assert "scale: no CUDA graph of 8 rows: cannot be captured" in said


def test_the_command_writes_what_it_found(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = RecordingDevice()
    monkeypatch.setattr(command, "open_devices", lambda *asked: Devices(gpus=(device,)))
    real = measure.measure
    monkeypatch.setattr(command, "measure", lambda *args, **more: real(*args, **more, host=host(device)))
    path = tmp_path / "gpu.json"
    arguments = [f"--repository={repository}", "--seconds=0.1", f"--json={path}"]
    monkeypatch.setattr(measure, "ROWS", (8,))
    done = CliRunner().invoke(command.gpu, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = json.loads(path.read_text())
    assert {"measured", "onnxruntime", "gpu", "overlap", "throughput", "copies"} <= set(found)
    with pytest.raises(StartError, match="there is no GPU 1 here; there are 0"):
        CliRunner().invoke(command.gpu, [*arguments, "--gpu=1"], catch_exceptions=False)


def test_without_a_gpu_it_says_so_and_ends_with_2(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("there is an NVIDIA driver here")
    monkeypatch.setattr("sys.argv", ["bench", "gpu"])
    assert bench.__main__.run() == 2
    assert "bench: device.kind is cuda, and no GPU can be used: " in capsys.readouterr().err
