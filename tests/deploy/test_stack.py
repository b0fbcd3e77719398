"""What Debian carries of the stack of Compose, started together with what is shipped, before two replicas of inferd."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import onnx_models as models
import pytest
import yaml
from serve.calls import arrays, request, rows
from serve.conftest import UNLEARNT
from serve.process import Server, free_ports
from serve.proxies.front import LIMIT_S, PLACES, until

from .edge.certificates import Certificates
from .edge.edges import Nginx
from .prometheus import Prometheus

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
SERVICES: dict[str, Any] = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())["services"]
# Debian's programs for PostgreSQL are in a folder for each version.
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
CALLS = 40


def tool(name: str) -> str:
    """Its path. Skips the test without it."""
    found = shutil.which(name, path=os.pathsep.join((*PLACES, *map(str, POSTGRES))))
    if found is None:
        pytest.skip(f"{name} is not installed; `make tools` does that")
    return found


def daemon(stack: ExitStack, command: list[str], folder: Path, **how: Any) -> Callable[[], None]:
    """Start it until the tests are over. What comes back fails once it has ended, with what it said."""
    log = folder / f"{Path(command[0]).name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=folder, **how
        )

    def end() -> None:
        process.terminate()
        try:
            process.wait(LIMIT_S)
        finally:
            process.kill()
            process.wait()

    def runs() -> None:
        assert process.poll() is None, log.read_text(errors="replace")

    stack.callback(end)
    return runs


def get(url: str) -> Any:
    """The JSON of a page, None while nobody answers."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=LIMIT_S) as answer:
            return json.load(answer)
    except OSError:
        return None


@pytest.fixture(scope="module")
def stack() -> Iterator[ExitStack]:
    with ExitStack() as entered:
        yield entered


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory, stack: ExitStack) -> list[Server]:
    """Two of them; on the second one model cannot be loaded."""
    folder = tmp_path_factory.mktemp("replicas")
    started = []
    for name in ("first", "second"):
        models.write(folder / name, "scale", models.scale())
        (folder / f"{name}-output").mkdir()
        if name == "second":
            (folder / name / "broken" / "1").mkdir(parents=True)
            (folder / name / "broken" / "1" / "model.onnx").write_bytes(b"no model")
        flags = (*UNLEARNT, "--threads-cpus=1", "--models-strict=false")
        started.append(Server(folder / name, folder / f"{name}-output", "native", flags, {}))
        stack.callback(started[-1].stop)
    for one in started:
        one.wait_until_ready()
    return started


@pytest.fixture(scope="module")
def nginx(replicas: list[Server], tmp_path_factory: pytest.TempPathFactory, stack: ExitStack) -> Nginx:
    certificates = Certificates(tmp_path_factory.mktemp("certificates"))
    ports = [one.grpc_port for one in replicas]
    started = Nginx(tmp_path_factory.mktemp("nginx"), certificates, ports, ports[1])
    stack.callback(started.stop)
    started.wait_until_ready()
    return started


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory, stack: ExitStack) -> str:
    """The address of its API."""
    folder, [port] = tmp_path_factory.mktemp("alertmanager"), free_ports(1)
    binary = shutil.which("prometheus-alertmanager") or tool("alertmanager")
    places = {"/etc/alertmanager": str(DEPLOY / "monitoring"), "=/alertmanager": f"={folder}"}
    flags = with_paths("alertmanager", places)
    runs = daemon(stack, [binary, *flags, f"--web.listen-address=127.0.0.1:{port}"], folder)

    def ready() -> bool:
        runs()
        return get(f"http://127.0.0.1:{port}/api/v2/status") is not None

    until(ready, "the start of Alertmanager")
    return f"127.0.0.1:{port}"


@pytest.fixture(scope="module")
def prometheus(
    replicas: list[Server], alertmanager: str, tmp_path_factory: pytest.TempPathFactory, stack: ExitStack
) -> Prometheus:
    """With the addresses of these processes in the place of names, and in more of a hurry; the rules are as shipped."""
    folder, [port] = tmp_path_factory.mktemp("prometheus"), free_ports(1)
    shipped = yaml.safe_load((DEPLOY / "compose" / "prometheus.yml").read_text())
    shipped["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    shipped["rule_files"] = [str(DEPLOY / "monitoring" / path) for path in shipped["rule_files"]]
    shipped["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [alertmanager]
    job, itself = shipped["scrape_configs"]
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": [f"127.0.0.1:{one.metrics_port}" for one in replicas]}]
    itself["static_configs"][0]["targets"] = [f"127.0.0.1:{port}"]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(shipped))
    flags = with_paths("prometheus", {"/etc/prometheus": str(folder), "=/prometheus": f"={folder / 'data'}"})
    runs = daemon(stack, [tool("prometheus"), *flags, f"--web.listen-address=127.0.0.1:{port}"], folder)

    def ready() -> bool:
        runs()
        return get(f"http://127.0.0.1:{port}/api/v1/status/runtimeinfo") is not None

    until(ready, "the start of Prometheus")
    return Prometheus(port)


def with_paths(service: str, places: dict[str, str]) -> list[str]:
    """The command of a service of the stack, with places of this machine."""
    command = [str(part) for part in SERVICES[service]["command"]]
    for old, new in places.items():
        command = [part.replace(old, new) for part in command]
    return command


def test_calls_through_nginx_are_in_what_prometheus_has_of_both_replicas(
    nginx: Nginx, replicas: list[Server], prometheus: Prometheus
) -> None:
    with nginx.stub() as stub:
        for seed in range(CALLS):
            answer = stub.ModelInfer(request("scale", x=rows(seed)), timeout=LIMIT_S)
            assert (arrays(answer)["y"] == rows(seed) * 2).all()
    ok = 'inferd_requests_total{job="inferd", model="scale", code="OK"}'
    prometheus.wait(f"sum({ok})", lambda value: value == CALLS)
    prometheus.wait(f"count({ok} > 0)", lambda value: value == len(replicas))
    prometheus.wait('sum(up{job="inferd"})', lambda value: value == len(replicas))


def test_an_alert_of_the_shipped_rules_reaches_the_receiver_of_its_severity(
    replicas: list[Server], prometheus: Prometheus, alertmanager: str
) -> None:
    del prometheus  # it has only to run

    told: list[Any] = []

    def is_told() -> bool:
        alerts = get(f"http://{alertmanager}/api/v2/alerts") or []
        told[:] = [one for one in alerts if one["labels"]["alertname"] == "InferdModelFailed"]
        return bool(told)

    until(is_told, "the alert")
    [alert] = told
    assert [one["name"] for one in alert["receivers"]] == ["tickets"]
    assert alert["labels"]["instance"] == f"127.0.0.1:{replicas[1].metrics_port}"
    assert alert["labels"]["model"] == "broken"
    assert (DEPLOY.parent / alert["annotations"]["runbook"]).exists()


def test_redis_is_started_and_asked_for_its_health_as_the_stack_does(tmp_path: Path, stack: ExitStack) -> None:
    tool("redis-server"), tool("redis-cli")
    [port], secret = free_ports(1), tmp_path / "redis_password"
    secret.write_text("sesame")
    config = tmp_path / "redis.conf"
    config.write_text((DEPLOY / "compose" / "redis.conf").read_text().replace("port 6379", f"port {port}"))
    places = {"/etc/redis.conf": str(config), "/run/secrets/redis_password": str(secret), "$$": "$"}
    [script] = with_paths("redis", places)
    runs = daemon(stack, [*SERVICES["redis"]["entrypoint"], script], tmp_path)
    [kind, check] = SERVICES["redis"]["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    for old, new in (*places.items(), ("redis-cli", f"redis-cli -p {port}")):
        check = check.replace(old, new)

    def healthy() -> bool:
        runs()
        return subprocess.run(["/bin/sh", "-c", check], capture_output=True, timeout=LIMIT_S).returncode == 0

    until(healthy, "the start of Redis")

    def ask(*command: str, password: str = "sesame") -> str:
        environment = {**os.environ, "REDISCLI_AUTH": password}
        done = subprocess.run(
            ["redis-cli", "-p", str(port), *command], env=environment, capture_output=True, text=True, timeout=LIMIT_S
        )
        return done.stdout.strip()

    assert ask("SET", "answer", "42", "EX", "60") == "OK"
    assert ask("GET", "answer") == "42"
    assert "NOAUTH" in ask("GET", "answer", password="")
    assert ask("CONFIG", "GET", "maxmemory").split() == ["maxmemory", str(256 * 1024 * 1024)]


def test_postgresql_lets_in_whom_the_stack_says_and_is_asked_for_its_health_as_it_does(
    stack: ExitStack,
) -> None:
    """What the image's entrypoint does with these variables is done here by hand."""
    given = SERVICES["postgres"]["environment"]
    initdb, postgres = tool("initdb"), tool("postgres")
    # It does not run as root.
    how: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    # Nor may that user look into the folder that a test is given.
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    folder.chmod(0o777)
    [port], secret, data = free_ports(1), folder / "postgres_password", folder / "data"
    secret.write_text("sesame")
    secret.chmod(0o644)
    made = subprocess.run(
        [initdb, f"--pgdata={data}", f"--username={given['POSTGRES_USER']}", f"--pwfile={secret}", "--no-sync",
         "--encoding=UTF8", "--locale=C", *given["POSTGRES_INITDB_ARGS"].split()],
        capture_output=True, text=True, timeout=60, cwd=folder, **how,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    command = [postgres, "-D", str(data), "-p", str(port), "-k", str(folder), "-c", "listen_addresses=127.0.0.1"]
    runs = daemon(stack, command, folder, **how)

    def ask(sql: str, password: str = "sesame", database: str = given["POSTGRES_DB"], host: str = "127.0.0.1") -> str:
        done = subprocess.run(
            [tool("psql"), "-h", host, "-p", str(port), "-U", given["POSTGRES_USER"], "-d", database, "-Atc", sql],
            env={**os.environ, "PGPASSWORD": password}, capture_output=True, text=True, timeout=LIMIT_S,
        )  # fmt: skip
        return done.stdout.strip() if done.returncode == 0 else re.sub(r".*(?:FATAL|ERROR): +", "", done.stderr.strip())

    kind, check, *arguments = SERVICES["postgres"]["healthcheck"]["test"]
    assert kind == "CMD"

    def healthy() -> bool:
        runs()
        asked = [tool(check), "-h", "127.0.0.1", "-p", str(port), *arguments]
        return subprocess.run(asked, capture_output=True, timeout=LIMIT_S).returncode == 0

    until(healthy, "the start of PostgreSQL")
    assert ask(f"CREATE DATABASE {given['POSTGRES_DB']}", database="postgres") == "CREATE DATABASE"
    assert ask("CREATE TABLE answers (x int); INSERT INTO answers VALUES (42)") == "CREATE TABLE\nINSERT 0 1"
    assert ask("SELECT x FROM answers") == "42"
    for host in ("127.0.0.1", str(folder)):
        assert "password authentication failed" in ask("SELECT 1", password="open", host=host)
    assert ask("SELECT rolpassword LIKE 'SCRAM-SHA-256%' FROM pg_authid WHERE rolname = current_user") == "t"
