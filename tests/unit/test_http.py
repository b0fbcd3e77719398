"""The HTTP side over real sockets: probes, metrics, and a listener that starts and stops cleanly."""

from __future__ import annotations

import asyncio
import gzip
import json
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

import pytest
import uvloop
from prometheus_client import CollectorRegistry, Gauge
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from inferd.errors import StartError
from inferd.health import HealthBoard
from inferd.http.health import ModelState, probe_routes
from inferd.http.metrics import metrics_app
from inferd.http.routes import application
from inferd.http.server import HttpServer

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def request(
    port: int, path: str, method: str = "GET", headers: dict[str, str] | None = None, host: str = LOOPBACK
) -> Answer:
    connection = HTTPConnection(host, port, timeout=10)
    try:
        connection.request(method, path, headers=headers or {})
        reply = connection.getresponse()
        return Answer(reply.status, {name.lower(): text for name, text in reply.getheaders()}, reply.read())
    finally:
        connection.close()


def run(main: Coroutine[Any, Any, None], loop_factory: Callable[[], Any] | None = None) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await main

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(bounded())


@asynccontextmanager
async def serving(app: ASGIApp, host: str = LOOPBACK, port: int = 0) -> AsyncIterator[HttpServer]:
    server = HttpServer(app, host, port, "http", flag="--http-port")
    await server.start()
    try:
        yield server
    finally:
        await server.stop(grace_s=5)


def ask(app: ASGIApp, path: str, method: str = "GET", headers: dict[str, str] | None = None) -> Answer:
    answers: list[Answer] = []

    async def main() -> None:
        async with serving(app) as server:
            answers.append(await asyncio.to_thread(request, server.port, path, method, headers))

    run(main())
    return answers[0]


def no_models() -> Iterable[ModelState]:
    return ()


def healthy(*, ready: bool = True, dead: str | None = None, models: Iterable[ModelState] = ()) -> ASGIApp:
    board = HealthBoard()
    board.set_ready(ready)
    board.add_liveness_probe(lambda: dead)
    return application(probe_routes(board, lambda: models))


# --- health and readiness -------------------------------------------------------------------------


def test_an_alive_server_says_so() -> None:
    answer = ask(healthy(), "/health")
    assert (answer.status, answer.json) == (200, {"status": "alive"})


def test_a_dead_server_says_why() -> None:
    answer = ask(healthy(dead="the engine thread ended"), "/health")
    assert (answer.status, answer.json) == (503, {"status": "dead", "reason": "the engine thread ended"})


def test_a_draining_server_is_alive() -> None:
    assert ask(healthy(ready=False), "/health").status == 200


def test_a_ready_server_shows_its_models() -> None:
    models = [
        ModelState("resnet", "1", "READY"),
        ModelState("bert", "2", "FAILED", "model.onnx is truncated"),
    ]
    answer = ask(healthy(models=models), "/ready")
    assert answer.status == 200
    assert answer.json == {
        "status": "ready",
        "models": [
            {"name": "resnet", "version": "1", "state": "READY", "reason": ""},
            {"name": "bert", "version": "2", "state": "FAILED", "reason": "model.onnx is truncated"},
        ],
    }


def test_a_server_that_is_not_ready_shows_its_models_too() -> None:
    answer = ask(healthy(ready=False, models=[ModelState("resnet", "1", "LOADING")]), "/ready")
    assert answer.status == 503
    assert answer.json["status"] == "not ready"
    assert answer.json["models"][0]["state"] == "LOADING"


def test_probe_answers_are_not_cached() -> None:
    assert ask(healthy(), "/ready").headers["cache-control"] == "no-store"


@pytest.mark.parametrize(("dead", "status"), [(None, 200), ("stuck", 503)])
def test_head_answers_as_get_does_without_a_body(dead: str | None, status: int) -> None:
    answer = ask(healthy(dead=dead), "/health", method="HEAD")
    assert (answer.status, answer.body) == (status, b"")
    assert int(answer.headers["content-length"]) > 0


@pytest.mark.parametrize("path", ["/", "/health/", "/healthz", "/metrics", "/v2/health/ready", "//health"])
def test_any_other_path_is_not_found_in_json(path: str) -> None:
    answer = ask(healthy(), path)
    assert (answer.status, answer.json) == (404, {"error": "Not Found"})


def test_another_method_is_refused_in_json() -> None:
    answer = ask(healthy(), "/health", method="POST")
    assert (answer.status, answer.json) == (405, {"error": "Method Not Allowed"})
    assert "GET" in answer.headers["allow"]


def test_a_bug_of_ours_is_a_json_answer_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Iterable[ModelState]:
        raise RuntimeError("secret detail")

    answer = ask(application(probe_routes(HealthBoard(), broken)), "/ready")
    assert answer.status == 500
    assert answer.json == {"error": "internal error; the server's log has the details"}
    assert "secret detail" in caplog.text


def test_the_server_does_not_name_its_software() -> None:
    assert "server" not in ask(healthy(), "/health").headers


# --- metrics --------------------------------------------------------------------------------------


def one_gauge() -> ASGIApp:
    registry = CollectorRegistry()
    Gauge("inferd_test", "A gauge.", registry=registry).set(7)
    return metrics_app(registry)


def test_metrics_are_plain_text_unless_asked_otherwise() -> None:
    answer = ask(one_gauge(), "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert b"\ninferd_test 7.0\n" in answer.body
    assert "content-encoding" not in answer.headers


def test_metrics_are_openmetrics_for_who_accepts_it() -> None:
    accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
    answer = ask(one_gauge(), "/metrics", headers={"Accept": accept})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.body.endswith(b"# EOF\n")


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text;version=abc",
        "text/plain;version=\xb2.1",
        "\xff\xfe",
        ";;,=",
        "image/png",
    ],
)
def test_an_accept_header_that_means_nothing_gets_plain_text(accept: str) -> None:
    answer = ask(one_gauge(), "/metrics", headers={"Accept": accept})
    assert (answer.status, answer.headers["content-type"]) == (
        200,
        "text/plain; version=0.0.4; charset=utf-8",
    )


@pytest.mark.parametrize("offer", ["gzip", "deflate, gzip;q=0.8", "GZIP", "br , gzip ;q=1.0"])
def test_metrics_are_compressed_when_asked(offer: str) -> None:
    answer = ask(one_gauge(), "/metrics", headers={"Accept-Encoding": offer})
    assert answer.headers["content-encoding"] == "gzip"
    assert b"inferd_test 7.0" in gzip.decompress(answer.body)


@pytest.mark.parametrize("offer", ["identity", "gzip;q=0", "gzip; q=0.0", "br", ""])
def test_metrics_are_not_compressed_unless_asked(offer: str) -> None:
    answer = ask(one_gauge(), "/metrics", headers={"Accept-Encoding": offer})
    assert "content-encoding" not in answer.headers
    assert b"inferd_test 7.0" in answer.body


def test_the_root_says_where_the_metrics_are() -> None:
    answer = ask(one_gauge(), "/")
    assert (answer.status, answer.body) == (200, b"The metrics are at /metrics\n")


@pytest.mark.parametrize("path", ["/metrics/", "/metrics/x", "/health"])
def test_metrics_are_at_one_path_only(path: str) -> None:
    assert ask(one_gauge(), path).status == 404


def test_metrics_answer_head() -> None:
    assert ask(one_gauge(), "/metrics", method="HEAD").status == 200


def test_many_scrapes_at_once_are_all_answered() -> None:
    async def main() -> None:
        async with serving(one_gauge()) as server:
            scrapes = (asyncio.to_thread(request, server.port, "/metrics") for _ in range(20))
            answers = await asyncio.gather(*scrapes)
            assert {answer.status for answer in answers} == {200}

    run(main())


# --- the listener ---------------------------------------------------------------------------------


def slow_app(begun: asyncio.Event, finish: Awaitable[Any]) -> ASGIApp:
    async def slow(request: Request) -> Response:
        begun.set()
        await finish
        return PlainTextResponse("done")

    return application([Route("/slow", slow)])


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_it_serves_on_the_loop_it_is_started_on(loop_factory: Callable[[], Any]) -> None:
    async def main() -> None:
        async with serving(healthy()) as server:
            assert (await asyncio.to_thread(request, server.port, "/health")).status == 200

    run(main(), loop_factory)


def test_any_free_port_is_told_after_the_start() -> None:
    async def main() -> None:
        server = HttpServer(healthy(), LOOPBACK, 0, "http", flag="--http-port")
        assert server.port == 0
        await server.start()
        assert server.port > 0
        await server.stop(grace_s=1)

    run(main())


def test_a_taken_port_is_named_with_the_flag_that_moves_it() -> None:
    async def main() -> None:
        async with serving(healthy()) as first:
            second = HttpServer(healthy(), LOOPBACK, first.port, "metrics", flag="--metrics-port")
            with pytest.raises(StartError) as caught:
                await second.start()
            assert str(caught.value) == (
                f"metrics port {first.port} on 127.0.0.1 is taken; choose another with --metrics-port"
            )
            await second.stop(grace_s=1)

    run(main())


def test_a_port_that_is_bound_but_not_listened_on_is_taken_too() -> None:
    async def main() -> None:
        with socket.socket() as other:
            other.bind((LOOPBACK, 0))
            port = other.getsockname()[1]
            with pytest.raises(StartError, match=f"http port {port} on 127.0.0.1 is taken"):
                await HttpServer(healthy(), LOOPBACK, port, "http", flag="--http-port").start()

    run(main())


def test_an_address_of_another_machine_is_refused_in_words() -> None:
    async def main() -> None:
        with pytest.raises(StartError, match=r"http port 0 on 192\.0\.2\.1 cannot be had: the host is no address of"):
            await HttpServer(healthy(), "192.0.2.1", 0, "http", flag="--http-port").start()

    run(main())


def test_a_host_that_is_no_name_is_refused_in_words() -> None:
    async def main() -> None:
        with pytest.raises(StartError, match=r"http host no\.such\.host\.invalid is unknown"):
            await HttpServer(healthy(), "no.such.host.invalid", 0, "http", flag="--http-port").start()

    run(main())


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")


@needs_ipv6
@pytest.mark.parametrize(("host", "dialled"), [("::1", "::1"), ("::", "::1"), ("::", LOOPBACK)])
def test_it_listens_on_ipv6_hosts(host: str, dialled: str) -> None:
    async def main() -> None:
        async with serving(healthy(), host=host) as server:
            answer = await asyncio.to_thread(request, server.port, "/health", host=dialled)
            assert answer.status == 200

    run(main())


def test_a_name_with_several_addresses_has_one_port() -> None:
    async def main() -> None:
        async with serving(healthy(), host="localhost") as server:
            answer = await asyncio.to_thread(request, server.port, "/health", host="localhost")
            assert answer.status == 200

    run(main())


def test_signals_stay_with_whoever_handles_them() -> None:
    async def main() -> None:
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        async with serving(healthy()):
            during = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        assert during == before

    run(main())


def test_a_stopped_server_frees_its_port() -> None:
    async def main() -> None:
        async with serving(healthy()) as first:
            port = first.port
            await asyncio.to_thread(request, port, "/health")
        async with serving(healthy(), port=port) as second:
            assert (await asyncio.to_thread(request, second.port, "/health")).status == 200

    run(main())


def test_an_answer_under_way_is_finished_within_the_grace() -> None:
    async def main() -> None:
        begun, finish = asyncio.Event(), asyncio.Event()
        server = HttpServer(slow_app(begun, finish.wait()), LOOPBACK, 0, "http", flag="--http-port")
        await server.start()
        asked = asyncio.create_task(asyncio.to_thread(request, server.port, "/slow"))
        await begun.wait()
        stopping = asyncio.create_task(server.stop(grace_s=10))
        while await asyncio.to_thread(accepts, server.port):
            await asyncio.sleep(0)
        finish.set()
        await stopping
        assert (await asked).body == b"done"

    run(main())


def accepts(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    except ConnectionResetError:
        pass  # taken, and dropped as the listener closed
    return True


def test_an_answer_that_outlives_the_grace_is_cut() -> None:
    async def main() -> None:
        begun = asyncio.Event()
        server = HttpServer(slow_app(begun, asyncio.Event().wait()), LOOPBACK, 0, "http", flag="--http-port")
        await server.start()
        asked = asyncio.create_task(asyncio.to_thread(request, server.port, "/slow"))
        await begun.wait()
        await server.stop(grace_s=0)
        (failure,) = await asyncio.gather(asked, return_exceptions=True)
        assert isinstance(failure, OSError) or getattr(failure, "status", None) == 500
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


@pytest.mark.parametrize(
    "sent", [b"", b"GET /health HTTP/1.1\r\nHost: x\r\n", b"\x16\x03\x01\x02\x00", b"PRI * HTTP/2.0\r\n"]
)
def test_a_client_that_never_finishes_its_request_does_not_delay_the_stop(sent: bytes) -> None:
    async def main() -> None:
        server = HttpServer(healthy(), LOOPBACK, 0, "http", flag="--http-port")
        await server.start()
        _, writer = await asyncio.open_connection(LOOPBACK, server.port)
        writer.write(sent)
        await writer.drain()
        async with asyncio.timeout(5):
            await server.stop(grace_s=60)
        writer.close()

    run(main())


def test_an_answer_nobody_reads_is_cut_with_its_connection() -> None:
    async def main() -> None:
        begun = asyncio.Event()

        async def large(request: Request) -> Response:
            begun.set()
            return Response(b"x" * 50_000_000)

        server = HttpServer(application([Route("/", large)]), LOOPBACK, 0, "http", flag="--http-port")
        await server.start()
        with socket.create_connection((LOOPBACK, server.port), timeout=10) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await begun.wait()
            async with asyncio.timeout(5):
                await server.stop(grace_s=0)
            received = await asyncio.to_thread(drain, client)
        assert received < 50_000_000

    run(main())


def drain(client: socket.socket) -> int:
    received = 0
    try:
        while part := client.recv(1 << 20):
            received += len(part)
    except ConnectionResetError:
        pass
    return received


def test_stopping_twice_or_before_the_start_is_harmless() -> None:
    async def main() -> None:
        server = HttpServer(healthy(), LOOPBACK, 0, "http", flag="--http-port")
        await server.stop(grace_s=1)
        await server.start()
        await server.stop(grace_s=1)
        await server.stop(grace_s=1)

    run(main())


def test_nothing_is_left_running_after_a_stop() -> None:
    async def main() -> None:
        async with serving(healthy()) as server:
            await asyncio.to_thread(request, server.port, "/health")
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())
