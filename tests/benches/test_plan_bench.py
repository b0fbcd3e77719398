"""What `python -m bench plan` lays beside the simulation: the batches that a real server ran."""

from __future__ import annotations

import sys
from pathlib import Path

import grpc
import onnx_models as models
from serve.calls import request, rows

from bench.plan import in_service, wait
from bench.plan_server import RECORD, batches
from bench.processes import Group, Start, free_port
from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub


def test_runs_in_service_give_the_mean_of_each_size_and_keep_their_order() -> None:
    ran = [(1, 90), (1, 110), (1, 100), (2, 80), (1, 100), (1, 100), (2, 80), (4, 900), (2, 80), (2, 80), (2, 80)]
    found = in_service(ran)
    # Two rows are no shorter than one, and once is too seldom to speak for four.
    assert found.run_ns == {1: 100.0, 2: 100.0}
    assert found.spread == (0.9, 1.1, 1.0, 0.8, 1.0, 1.0, 0.8, 0.8, 0.8, 0.8)


def test_batches_are_read_from_where_they_were_read_to(tmp_path: Path) -> None:
    (tmp_path / "record").write_bytes(b"".join(RECORD.pack(n, 1, 10 * n) for n in range(5)))
    assert batches(tmp_path / "record", 3) == [(3, 1, 30), (4, 1, 40)]


def test_a_server_writes_down_what_it_ran(tmp_path: Path) -> None:
    models.write(tmp_path / "models", "scale", models.scale())
    record, port = tmp_path / "record", free_port()
    flags = (f"--grpc-port={port}", "--http-port=0", "--metrics-port=0", "--host=127.0.0.1", "--batching-inline-us=0")
    command = (sys.executable, "-m", "bench.plan_server", record, "serve", tmp_path / "models", *flags)
    with Group(Start(command), tmp_path / "log") as server:
        wait(f"127.0.0.1:{port}", server)
        before = len(batches(record, 0))
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
            for seed in range(3):
                GRPCInferenceServiceStub(channel).ModelInfer(request("scale", x=rows(seed, count=2)), timeout=30)
        ran = batches(record, before)
    assert [one for _, one, _ in ran] == [2, 2, 2]
    assert all(run_ns > 0 for _, _, run_ns in ran)
