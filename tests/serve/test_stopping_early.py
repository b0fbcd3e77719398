"""SIGTERM before there is anything to serve: while a model is read or warms up, while a client has one loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import onnx_models as models
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inferd.proto import inference_pb2 as pb

from .calls import trips_for
from .process import BUG, Server, eventually
from .scrape import samples

LONG_MS = 10 * 60 * 1000
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING

WARMED_UP_FOR_LONG = """
max_batch_size: 1
model_warmup { name: "long" batch_size: 1
  inputs { key: "x" value { data_type: TYPE_FP32 dims: 4 zero_data: true } }
  inputs { key: "trips" value { data_type: TYPE_INT64 dims: 1 input_data_file: "trips" } } }
"""


def reads_for_long(repository: Path) -> None:
    models.write(repository, "late", models.slow_to_open())


def warms_up_for_long(repository: Path) -> None:
    models.write(repository, "late", models.slow(), config=WARMED_UP_FOR_LONG)
    (repository / "late" / "warmup").mkdir()
    (repository / "late" / "warmup" / "trips").write_bytes(np.array([trips_for(LONG_MS)], "<i8").tobytes())


def is_loading(server: Server, name: str) -> bool:
    """Whether a model is on its way and not here."""
    found = {
        (labels["model"], labels["state"]) for key, labels, on in samples(server) if key == "inferd_model_state" and on
    }
    return (name, "LOADING") in found


def ended_well(server: Server) -> None:
    """It stops long before the model would be there, and has nothing to regret."""
    assert server.wait(30) == 0
    assert BUG not in server.stderr
    assert "Traceback" not in server.stderr
    assert server.log()[-1]["message"] == "stopped"


@pytest.mark.parametrize("write", [reads_for_long, warms_up_for_long])
def test_sigterm_before_it_is_ready_ends_it_well_and_soon(
    repository: Path, launch: Callable[..., Server], write: Callable[[Path], None]
) -> None:
    write(repository)
    one = launch(repository)
    one.wait_until_listening()
    eventually(lambda: is_loading(one, "late"))
    assert one.health("liveness") == "SERVING"
    with one.channel() as channel:
        asked = health_pb2.HealthCheckRequest(service="readiness")
        watch = health_pb2_grpc.HealthStub(channel).Watch(asked, timeout=60)
        assert next(watch).status == NOT_SERVING
        one.terminate()
        # Nothing has changed for who watches, until there is nobody to ask.
        assert [answer.status for answer in watch] == []
        assert watch.code() is grpc.StatusCode.OK
    ended_well(one)


def test_sigterm_while_a_client_has_a_model_loaded_ends_its_call_and_the_server(
    repository: Path, server: Callable[..., Server]
) -> None:
    models.write(repository, "scale", models.scale())
    warms_up_for_long(repository)
    one = server(repository, "--model-control-mode=explicit", "--load-model=scale", "--drain-grace-ms=1000")
    with one.stub() as stub:
        load = stub.RepositoryModelLoad.future(pb.RepositoryModelLoadRequest(model_name="late"), timeout=60)
        eventually(lambda: is_loading(one, "late"))
        assert one.health() == "SERVING"
        one.terminate()
        assert load.exception(30) is not None
        assert load.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    ended_well(one)
