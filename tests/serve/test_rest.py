"""The protocol over REST, as its clients and plain HTTP see it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_models as models
import pytest

from .backlog import occupy, queue_behind
from .conftest import SLOW_ALONE
from .process import Server
from .scrape import counted, wait_for

tritonhttp = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")

ROW = [1.0, 2.0, 3.0, 4.0]


def ask(
    server: Server, path: str, body: Any = None, *, method: str = "", headers: dict[str, str] | None = None
) -> tuple[int, Any, dict[str, str]]:
    """Status, JSON and headers of one exchange; `body` is sent as it is if it is bytes, else as JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=30)
    sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    try:
        connection.request(method or ("GET" if sent is None else "POST"), path, sent, headers or {})
        answer = connection.getresponse()
        told = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, json.loads(answer.read() or b"null"), told
    finally:
        connection.close()


def tensor(data: Any = ROW, shape: tuple[int, ...] = (1, 4), datatype: str = "FP32", name: str = "x") -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape), "data": data}


def scaled(server: Server, **extra: Any) -> tuple[int, Any, dict[str, str]]:
    return ask(server, "/v2/models/scale/infer", {"inputs": [tensor()], **extra})


@pytest.fixture
def client(zoo: Server) -> Iterator[Any]:
    with tritonhttp.InferenceServerClient(f"127.0.0.1:{zoo.http_port}") as opened:
        yield opened


# --- what is here -------------------------------------------------------------------------------------


def test_the_server_tells_what_it_is(zoo: Server) -> None:
    status, told, _ = ask(zoo, "/v2")
    assert (status, told["name"]) == (200, "inferd")
    assert "binary_tensor_data" in told["extensions"]


def test_health_is_told(zoo: Server) -> None:
    assert ask(zoo, "/v2/health/live")[:2] == (200, {"live": True})
    assert ask(zoo, "/v2/health/ready")[:2] == (200, {"ready": True})


def test_a_model_tells_its_tensors(zoo: Server) -> None:
    status, told, _ = ask(zoo, "/v2/models/scale")
    assert status == 200
    assert told["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert told["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}]


def test_the_configuration_is_what_grpc_tells(client: Any, zoo: Server) -> None:
    told = client.get_model_config("scale_by_4")
    assert (told["max_batch_size"], told["platform"]) == (4, "onnxruntime_onnx")
    assert told["input"][0]["dims"] == [4]
    assert told["input"][0]["data_type"] == "TYPE_FP32"
    assert told["dynamic_batching"]["max_queue_delay_microseconds"] == 200000
    assert ask(zoo, "/v2/models/nobody/config")[0] == 404


def test_statistics_are_numbers(client: Any, zoo: Server) -> None:
    scaled(zoo)
    (told,) = client.get_inference_statistics("scale")["model_stats"]
    assert told["inference_count"] >= told["execution_count"] >= 1
    assert told["inference_stats"]["success"]["ns"] > 0
    assert told["batch_stats"][0]["compute_infer"]["count"] >= 1
    assert len(client.get_inference_statistics()["model_stats"]) > 20


def test_a_version_is_ready(zoo: Server) -> None:
    assert ask(zoo, "/v2/models/versioned/versions/3/ready")[0] == 200
    assert ask(zoo, "/v2/models/versioned/versions/2/ready")[0] == 404


# --- inference ------------------------------------------------------------------------------------------


def test_an_inference_in_json(zoo: Server) -> None:
    status, told, headers = scaled(zoo, id="seven")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert told == {
        "model_name": "scale",
        "model_version": "1",
        "id": "seven",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 4], "data": [2.0, 4.0, 6.0, 8.0]}],
    }


def test_nested_rows_are_rows(zoo: Server) -> None:
    body = {"inputs": [tensor([ROW, ROW], (2, 4))]}
    assert ask(zoo, "/v2/models/scale/infer", body)[1]["outputs"][0]["data"] == [2.0, 4.0, 6.0, 8.0] * 2


def test_a_version_can_be_named(zoo: Server) -> None:
    for version, factor in (("1", 10.0), ("3", 30.0)):
        told = ask(zoo, f"/v2/models/versioned/versions/{version}/infer", {"inputs": [tensor()]})[1]
        assert told["model_version"] == version
        assert told["outputs"][0]["data"] == [factor * one for one in ROW]


@pytest.mark.parametrize("datatype", sorted(models.ELEMENT_TYPES))
@pytest.mark.parametrize("binary", [True, False], ids=["bytes", "json"])
def test_every_datatype_goes_there_and_back(client: Any, datatype: str, binary: bool) -> None:
    if datatype == "BF16":
        pytest.skip("numpy has no BF16; the elements' own tests have it")
    if datatype == "FP16" and not binary:
        pytest.skip("tritonclient does not send FP16 as JSON; the elements' own tests have it")
    kind = np.object_ if datatype == "BYTES" else tritonhttp.triton_to_np_dtype(datatype)
    sent = np.array([["a", "", "ü"]], object) if datatype == "BYTES" else np.array([[0, 1, 1]]).astype(kind)
    given = tritonhttp.InferInput("IN", [1, 3], datatype)
    given.set_data_from_numpy(sent, binary_data=binary)
    wanted = tritonhttp.InferRequestedOutput("OUT", binary_data=binary)
    got = client.infer(f"identity_{datatype}", [given], outputs=[wanted]).as_numpy("OUT")
    expected = [one.encode() for one in sent[0]] if datatype == "BYTES" and binary else list(sent[0])
    assert got.shape == (1, 3)
    assert list(got[0]) == expected


def test_large_tensors_go_there_and_back(client: Any) -> None:
    sent = np.arange(3 * 40_000, dtype=np.float32).reshape(-1, 3)
    for binary in (True, False):
        given = tritonhttp.InferInput("IN", [40_000, 3], "FP32")
        given.set_data_from_numpy(sent, binary_data=binary)
        answer = client.infer("identity_FP32", [given])
        assert (answer.as_numpy("OUT") == sent).all()


def test_labels_come_as_text(zoo: Server) -> None:
    status, told, _ = scaled(zoo, outputs=[{"name": "y", "parameters": {"classification": 1}}])
    assert status == 200
    assert told["outputs"][0]["datatype"] == "BYTES"
    assert told["outputs"][0]["data"][0].startswith("8.0")


def test_what_json_cannot_write_is_text(zoo: Server) -> None:
    body = {"inputs": [tensor(["NaN", "Infinity", "-Infinity"], (1, 3), name="IN")]}
    told = ask(zoo, "/v2/models/identity_FP32/infer", body)[1]
    assert told["outputs"][0]["data"] == ["NaN", "Infinity", "-Infinity"]


def test_requests_are_counted_with_those_of_grpc(server: Callable[..., Server], repository: Path) -> None:
    models.write(repository, "scale", models.scale())
    one = server(repository)
    scaled(one)
    ask(one, "/v2/models/scale/infer", {"inputs": [tensor([1.0], (1, 1))]})
    counted = wait_for(one, "scale", lambda now: now.requests == 2)
    assert counted.codes == {"OK": 1, "INVALID_ARGUMENT": 1}


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("scale", b"{", 400, "not JSON"),
        ("scale", b"[]", 400, "not a JSON object"),
        ("scale", b"\xff", 400, "UTF-8"),
        ("scale", b"[" * 100_000, 400, "nested"),
        ("scale", {"input": [tensor()]}, 400, "no inputs"),
        ("scale", {"inputs": [tensor(name="z")]}, 400, "z"),
        ("scale", {"inputs": [tensor(datatype="FP64")]}, 400, "FP64"),
        ("scale", {"inputs": [tensor(datatype="FLOAT")]}, 400, "FLOAT"),
        ("scale", {"inputs": [tensor([1.0, 2.0])]}, 400, "x"),
        ("scale", {"inputs": [tensor(shape=(-1, 4))]}, 400, "shape"),
        ("scale", {"inputs": [tensor(["one", 2, 3, 4])]}, 400, '"one"'),
        ("scale", {"inputs": [tensor([1e300, 2, 3, 4])]}, 400, "too large"),
        ("scale", b'{"id": "\\ud800", "inputs": [{"name": "x", "datatype": "FP32", "shape": [0]}]}', 400, "character"),
        ("nobody", {"inputs": [tensor()]}, 404, "nobody"),
        ("scale/versions/7", {"inputs": [tensor()]}, 404, "version"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(zoo: Server, path: str, body: Any, status: int, text: str) -> None:
    code, told, _ = ask(zoo, f"/v2/models/{path}/infer", body)
    assert (code, list(told)) == (status, ["error"])
    assert text in told["error"]


def test_bytes_that_do_not_add_up_are_refused(zoo: Server) -> None:
    head = json.dumps(
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}]}
    ).encode()
    path = "/v2/models/scale/infer"

    def told(behind: int, length: int) -> str:
        headers = {"Inference-Header-Content-Length": str(length)}
        status, answer, _ = ask(zoo, path, head + bytes(behind), headers=headers)
        assert status == 400
        return str(answer["error"])

    assert "binary_data_size is 16" in told(12, len(head))
    assert "4 bytes follow" in told(20, len(head))
    assert "Content-Length" in told(16, len(head) + 100)


def test_a_body_over_the_limit_is_refused_and_the_server_goes_on(
    server: Callable[..., Server], repository: Path
) -> None:
    models.write(repository, "scale", models.scale())
    one = server(repository, "--http-max-body-bytes=4096")
    status, told, _ = ask(one, "/v2/models/scale/infer", b" " * 5000)
    assert (status, "http.max_body_bytes" in told["error"]) == (413, True)
    assert scaled(one)[0] == 200


def test_pages_of_other_sites_may_not_run_models(zoo: Server) -> None:
    body = {"inputs": [tensor()]}
    assert ask(zoo, "/v2/models/scale/infer", body, headers={"Origin": "https://elsewhere.example"})[0] == 403
    own = f"http://127.0.0.1:{zoo.http_port}"
    assert ask(zoo, "/v2/models/scale/infer", body, headers={"Origin": own})[0] == 200


SLOW_REQUEST = {"inputs": [tensor(), tensor([0], (1, 1), "INT64", "trips")]}


def test_a_full_queue_is_too_many_requests(server: Callable[..., Server], repository: Path) -> None:
    models.write(repository, "slow", models.slow(), config=SLOW_ALONE)
    one = server(repository, "--batching-max-batch-size=1", "--batching-max-queue-rows=1")
    with one.stub() as stub:
        busy = occupy(one, stub, duration_ms=1500)
        waiting = queue_behind(one, stub, 1)
        status, told, headers = ask(one, "/v2/models/slow/infer", SLOW_REQUEST)
        assert status == 429, told
        assert headers["retry-after"] == "1"
        assert "queue" in told["error"]
        assert not [call.result() for call in (busy, *waiting) if not call.result().outputs]


def test_a_client_that_goes_away_leaves_the_queue(server: Callable[..., Server], repository: Path) -> None:
    models.write(repository, "slow", models.slow(), config=SLOW_ALONE)
    one = server(repository)
    with one.stub() as stub:
        busy = occupy(one, stub, duration_ms=1500)
        before = counted(one, "slow")
        connection = http.client.HTTPConnection("127.0.0.1", one.http_port, timeout=30)
        connection.request("POST", "/v2/models/slow/infer", json.dumps(SLOW_REQUEST))
        wait_for(one, "slow", lambda now: now.queue_rows == 1)
        connection.close()
        now = wait_for(one, "slow", lambda now: now.queue_rows == 0 and now.requests > before.requests)
        assert not busy.done()
        assert now.since(before).codes == {"CANCELLED": 1}
        busy.result()


def test_rest_can_be_turned_off(server: Callable[..., Server], repository: Path) -> None:
    models.write(repository, "scale", models.scale())
    one = server(repository, "--http-inference=false")
    assert scaled(one)[0] == 404
    assert ask(one, "/ready")[0] == 200
