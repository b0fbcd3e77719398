"""The access log of a running server: a line for each request, and nothing of what was in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx_models as models
import pytest

from .calls import request, rows
from .process import POLL_S, Server, eventually
from .scrape import samples

TIMEOUT_S = 30.0
SECRET = "do-not-write-this-down"
BAD_INDEX = 987654
TRACED = ("--tracing-enabled=true", "--tracing-endpoint=http://127.0.0.1:1", "--tracing-timeout-ms=100",
          "--tracing-sample-rate=0")  # fmt: skip
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def lines(server: Server, count: int) -> list[dict[str, Any]]:
    """The lines of the access log, once there are so many."""
    end = time.monotonic() + TIMEOUT_S
    while len(found := [one for one in server.log() if one["logger"] == "inferd.access"]) < count:
        assert time.monotonic() < end, server.stderr
        time.sleep(POLL_S)
    assert len(found) == count, found
    return found


def test_each_request_is_a_line_with_its_end_and_its_times(repository: Path, server: Callable[..., Server]) -> None:
    models.write(repository, "mlp", models.mlp())
    one = server(repository, "--log-access=true", *TRACED)
    with one.stub() as stub:
        stub.ModelInfer(request("mlp", id="good", x=rows(1, 3)), metadata=(("authorization", SECRET),))
        with pytest.raises(grpc.RpcError):
            stub.ModelInfer(request("mlp", id="wrong", x=rows(1, width=3)))
        stub.ModelInfer(request("mlp", id="traced", x=rows(1)), metadata=(("traceparent", f"00-{TRACE}-{SPAN}-01"),))
        list(stub.ModelStreamInfer(iter([request("mlp", id=f"streamed {number}", x=rows(1)) for number in (1, 2)])))
    found = {line["request_id"]: line for line in lines(one, 5)}
    assert set(found) == {"good", "wrong", "traced", "streamed 1", "streamed 2"}
    good = found["good"]
    assert (good["model"], good["version"], good["code"], good["rows"]) == ("mlp", "1", "OK", 3)
    assert 0 <= good["queue_ms"] <= good["duration_ms"]
    assert 0 < good["compute_ms"] <= good["duration_ms"]
    assert (good["message"], good["level"]) == ("request", "info")
    assert found["wrong"]["code"] == "INVALID_ARGUMENT"
    assert not {"queue_ms", "compute_ms", "trace_id"} & set(found["wrong"])
    assert (found["traced"]["trace_id"], found["traced"]["trace_flags"]) == (TRACE, "01")
    assert found["traced"]["span_id"] != SPAN
    assert [found[f"streamed {number}"]["streamed"] for number in (1, 2)] == [True, True]
    assert sorted(line["ts"] for line in found.values()) == [line["ts"] for line in lines(one, 5)]
    written = {labels["result"]: value for name, labels, value in samples(one) if name == "inferd_access_lines_total"}
    assert written == {"written": 5, "dropped": 0}
    assert SECRET not in one.stderr


def test_texts_in_tensors_are_never_written_down(repository: Path, server: Callable[..., Server]) -> None:
    models.write(repository, "texts", models.identity("BYTES", ["rows", 1]))
    one = server(repository, "--log-access=true", "--log-level=debug")
    message = request("texts", id="text")
    message.inputs.add(name="IN", datatype="BYTES", shape=[1, 1]).contents.bytes_contents.append(SECRET.encode())
    with one.stub() as stub:
        answer = stub.ModelInfer(message)
        assert SECRET.encode() in answer.raw_output_contents[0]
        message.inputs[0].shape[:] = [1, 7]
        with pytest.raises(grpc.RpcError):
            stub.ModelInfer(message)
    assert [line["code"] for line in lines(one, 2)] == ["OK", "INVALID_ARGUMENT"]
    assert SECRET not in one.stderr


def test_the_last_requests_are_written_when_the_server_stops(repository: Path, server: Callable[..., Server]) -> None:
    models.write(repository, "mlp", models.mlp())
    one = server(repository, "--log-access=true")
    with one.stub() as stub:
        for number in range(50):
            stub.ModelInfer(request("mlp", id=str(number), x=rows(1)))
    one.stop()
    assert [line["request_id"] for line in lines(one, 50)] == [str(number) for number in range(50)]


def test_without_being_asked_for_there_is_no_access_log(zoo: Server) -> None:
    with zoo.stub() as stub:
        stub.ModelInfer(request("mlp", x=rows(1)))
    assert not [line for line in zoo.log() if line["logger"] == "inferd.access"]


def test_a_failure_in_the_log_names_its_request_and_its_trace_but_no_value(
    repository: Path, server: Callable[..., Server]
) -> None:
    models.write(repository, "embedding", models.embedding())
    one = server(repository, *TRACED)
    outside = np.array([[BAD_INDEX]], "i8")
    with one.stub() as stub:
        for id, metadata in (("traced", (("traceparent", f"00-{TRACE}-{SPAN}-01"),)), ("plain", ())):
            with pytest.raises(grpc.RpcError) as failure:
                stub.ModelInfer(request("embedding", id=id, ids=outside), metadata=metadata)
            assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    told = {line["request_id"]: line for line in one.log() if line["message"] == "run failed"}
    assert set(told) == {"traced", "plain"}
    for line in told.values():
        assert (line["model"], line["code"], line["level"]) == ("embedding", "INVALID_ARGUMENT", "warning")
        assert "Gather" in line["reason"]
        assert str(BAD_INDEX) not in line["reason"]
    assert told["traced"]["trace_id"] == TRACE
    assert len(told["traced"]["span_id"]) == 16
    assert told["traced"]["span_id"] != SPAN
    assert "trace_id" not in told["plain"]
    assert str(BAD_INDEX) not in one.stderr


def test_health_checks_are_logged_where_that_is_asked_for(repository: Path, server: Callable[..., Server]) -> None:
    models.write(repository, "mlp", models.mlp())
    one = server(repository, "--log-access=true", "--log-access-probes=true")
    assert one.health() == "SERVING"
    assert one.http("/ready")[0] == 200
    wanted = {"grpc.health.v1.Health/Check", "inferd.Http/Ready"}
    eventually(lambda: wanted <= {line["method"] for line in one.log() if line["logger"] == "inferd.access"})
