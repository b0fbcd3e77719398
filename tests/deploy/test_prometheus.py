"""A real Prometheus, with the configuration that is shipped, scrapes a real server under load."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx_models as models
import pytest
import yaml
from serve.calls import code_of, request, rows
from serve.process import Server, free_ports

from inferd.bench.result import Point, Report

from .prometheus import POLL_S, WAIT_S, Prometheus

MONITORING = Path(__file__).resolve().parents[2] / "deploy" / "monitoring"
# Requests of two rows before those that count: one that warms the model up, and the runner's own first one.
BEFORE = 2

pytest.importorskip("inferd._native.load", reason="built without nghttp2")
pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason="no Prometheus; `make tools` installs it")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("watched")
    models.write(folder / "repository", "mlp", models.mlp())
    one = Server(folder / "repository", folder, "native", ("--warmup-budget-ms=0",), {})
    with one.while_ready():
        with one.stub() as stub:
            stub.ModelInfer(request("mlp", x=rows(1, count=2)))
        yield one


@pytest.fixture(scope="module")
def prometheus(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    shipped = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    shipped["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    shipped["rule_files"] = [str(MONITORING / path) for path in shipped["rule_files"]]
    shipped["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{server.metrics_port}"]
    del shipped["scrape_configs"][1:], shipped["alerting"]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(shipped))
    (port,) = free_ports(1)
    command = [
        "prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        one, end = Prometheus(port), time.monotonic() + WAIT_S
        while True:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end, (folder / "log").read_text()
            try:
                if one.value('up{job="inferd"}') == 1:
                    break
            except (OSError, urllib.error.URLError):
                pass
            time.sleep(POLL_S)
        yield one
    finally:
        process.terminate()
        try:
            process.wait(WAIT_S)
        finally:
            process.kill()
            process.wait()


def total(name: str, **labels: str) -> str:
    """The sum of a counter over whatever it is split by, and 0 before there is any."""
    chosen = ", ".join(f'{label}="{value}"' for label, value in {"model": "mlp", **labels}.items())
    return f"sum({name}{{{chosen}}}) or vector(0)"


@pytest.fixture(scope="module")
def point(server: Server, prometheus: Prometheus) -> Point:
    """What the load runner counted of 3000 requests of two rows; Prometheus has scraped their ends since."""
    done = subprocess.run(
        [sys.executable, "-m", "inferd", "bench", server.address, "mlp", "--requests=3000", "--batch=2", "--json=-"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (found,) = Report.model_validate_json(done.stdout).points
    ended_s = time.time()
    prometheus.wait("timestamp(inferd_ready)", lambda scraped_s: scraped_s > ended_s)
    return found


def test_prometheus_counts_what_the_runner_counted(prometheus: Prometheus, point: Point) -> None:
    assert point.ok == 3000
    requests = BEFORE + point.ok
    assert prometheus.value(total("inferd_requests_total", code="OK")) == requests
    assert prometheus.value(total("inferd_request_duration_seconds_count")) == requests
    assert prometheus.value(total("inferd_queue_duration_seconds_count")) == requests
    assert prometheus.value(total("inferd_rows_total")) == 2 * requests
    assert prometheus.value(total("inferd_batch_rows_sum")) == 2 * requests
    assert point.statistics is not None
    assert prometheus.value(total("inferd_batches_total")) == BEFORE + point.statistics.executions


def test_no_request_is_longer_in_the_server_than_for_its_client(prometheus: Prometheus, point: Point) -> None:
    inside_s = prometheus.value(total("inferd_request_duration_seconds_sum"))
    assert inside_s is not None
    assert 0 < inside_s / (BEFORE + point.ok) < point.latency.mean_ns * 1e-9


def test_every_accepted_request_has_its_end(prometheus: Prometheus, point: Point) -> None:
    ended = " + ".join(
        f"({total(name, **labels)})"
        for name, labels in (("inferd_requests_total", {"code": "OK"}), ("inferd_failed_requests_total", {}))
    )
    accepted = total("inferd_accepted_requests_total")
    assert prometheus.value(f"({accepted}) - ({ended}) - ({total('inferd_in_flight_requests')})") == 0


def test_refusals_are_recorded_by_their_code_and_reason(server: Server, prometheus: Prometheus, point: Point) -> None:
    del point  # what it counts first is not to be disturbed
    with server.stub() as stub:
        for _ in range(7):
            code_of(lambda: stub.ModelInfer(request("mlp", x=rows(1, width=3))))
    prometheus.wait(total("inferd_requests_total", code="INVALID_ARGUMENT"), lambda value: value == 7)
    prometheus.wait(total("inferd_rejected_requests_total", reason="invalid"), lambda value: value == 7)


def test_every_rule_is_evaluated_and_nothing_fires(prometheus: Prometheus, point: Point) -> None:
    prometheus.wait("count(inferd:requests_bad:rate3d)", lambda value: value == 1)
    end = time.monotonic() + WAIT_S
    while any(rule["health"] == "unknown" for rule in told(prometheus)):
        assert time.monotonic() < end
        time.sleep(POLL_S)
    assert [rule for rule in told(prometheus) if rule["health"] != "ok"] == []
    assert [rule["name"] for rule in told(prometheus) if rule.get("state") == "firing"] == []


def told(prometheus: Prometheus) -> list[Any]:
    return [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
