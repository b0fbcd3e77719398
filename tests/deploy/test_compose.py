"""The stack of deploy/compose, as Compose itself reads it, and what of it can be run or checked without an engine."""

from __future__ import annotations

import copy
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from serve.process import free_ports
from serve.proxies.front import LIMIT_S, until

from .stacks import PUBLISHED, Stack, faults

COMPOSE = Path(__file__).resolve().parents[2] / "deploy" / "compose"
PLACES = os.pathsep.join((os.path.dirname(sys.executable), os.environ.get("PATH", ""), "/usr/sbin"))
NOT_USED_YET = {"redis", "postgres"}


def tool(name: str) -> str:
    found = shutil.which(name, path=PLACES)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def composed(path: Path) -> tuple[Stack, str]:
    """A file with all profiles, every short form written out, and what Compose says of it."""
    done = subprocess.run(
        [tool("docker-compose"), "-f", path, "--profile", "*", "config", "--format", "json"],
        capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: Stack = json.loads(done.stdout)
    return found, done.stderr


@pytest.fixture(scope="module")
def stack() -> Stack:
    found, said = composed(COMPOSE / "compose.yaml")
    assert said == ""
    return found


def test_the_stack_has_no_fault(stack: Stack) -> None:
    assert list(faults(stack)) == []


@pytest.mark.parametrize(
    ("service", "change", "found"),
    [
        ("prometheus", {"image": "prom/prometheus:latest"}, "not one version"),
        ("grafana", {"image": "grafana/grafana"}, "not one version"),
        ("redis", {"ports": [{"target": 6379, "published": "6379"}]}, "is published"),
        ("nginx", {"ports": [{"target": 8443, "host_ip": "0.0.0.0"}]}, "is published"),
        ("postgres", {"environment": {"POSTGRES_PASSWORD": "x"}}, "is no file"),
        ("inferd", {"healthcheck": None}, "no health check"),
        ("kibana", {"cap_drop": []}, "more rights"),
        ("fluent-bit", {"volumes": [{"type": "bind", "source": "/var/log", "target": "/log"}]}, "may write"),
        ("alertmanager", {"deploy": {}}, "all memory"),
    ],
)
def test_each_fault_would_be_found(stack: Stack, service: str, change: dict[str, Any], found: str) -> None:
    broken = copy.deepcopy(stack)
    for key, value in change.items():
        broken["services"][service][key] = value
        if value is None:
            del broken["services"][service][key]
    assert [one for one in faults(broken) if one.startswith(f"{service}: ") and found in one]


def test_several_replicas_stand_behind_the_proxy_and_only_it_reaches_them_from_outside(stack: Stack) -> None:
    inferd = stack["services"]["inferd"]
    assert inferd["deploy"]["replicas"] >= 2
    assert not inferd.get("ports")
    outside = {name for name, network in stack["networks"].items() if not network.get("internal")}
    assert outside == {"front"}
    assert {name for name, one in stack["services"].items() if outside & set(one["networks"])} == PUBLISHED


def test_what_inferd_does_not_use_is_not_started_by_itself(stack: Stack) -> None:
    for name, service in stack["services"].items():
        wanted = ["data"] if name in NOT_USED_YET else None
        assert ("data" in service.get("profiles", ())) == (wanted is not None), name
        assert not NOT_USED_YET & set(service.get("depends_on", {}))


def test_every_file_that_is_mounted_is_there(stack: Stack) -> None:
    made = {"secrets", "containers", "example-models"}
    for service in stack["services"].values():
        for mount in service.get("volumes", ()):
            if mount["type"] == "bind" and not made & set(Path(mount["source"]).parts):
                assert Path(mount["source"]).exists(), mount["source"]


def test_the_grace_of_a_stop_is_longer_than_the_drain(stack: Stack) -> None:
    inferd = stack["services"]["inferd"]
    drain_ms = int(inferd["environment"]["INFERD_DRAIN_GRACE_MS"])
    assert int(inferd["stop_grace_period"].removesuffix("s")) * 1000 > drain_ms


def test_prometheus_takes_its_configuration_with_the_rules(tmp_path: Path) -> None:
    shutil.copytree(COMPOSE.parent / "monitoring" / "rules", tmp_path / "rules")
    shutil.copy(COMPOSE / "prometheus.yml", tmp_path)
    done = subprocess.run(
        [tool("promtool"), "check", "config", tmp_path / "prometheus.yml"],
        capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_prometheus_looks_for_the_replicas_by_the_name_that_the_alerts_know() -> None:
    mine, other = (
        yaml.safe_load(path.read_text())
        for path in (COMPOSE / "prometheus.yml", COMPOSE.parent / "monitoring" / "prometheus.yml")
    )
    [job] = [one for one in mine["scrape_configs"] if one["job_name"] == "inferd"]
    assert job["dns_sd_configs"][0]["names"] == ["inferd"]
    assert "inferd" in [one["job_name"] for one in other["scrape_configs"]]
    assert mine["rule_files"] == other["rule_files"]


def test_the_secrets_are_made_once_and_belong_together(tmp_path: Path, stack: Stack) -> None:
    openssl = tool("openssl")
    script = shutil.copy(COMPOSE / "make-secrets.sh", tmp_path)
    subprocess.run([script, "models.example"], check=True, timeout=LIMIT_S)
    folder = tmp_path / "secrets"
    wanted = {Path(one["file"]).name for one in stack["secrets"].values()}
    assert wanted <= {path.name for path in folder.iterdir()}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    passwords = {path.name: path.read_text() for path in folder.glob("*_password")}
    assert len(set(passwords.values())) == len(passwords) == 6
    for certificate in ("tls.crt", "client.crt"):
        subprocess.run(
            [openssl, "verify", "-CAfile", folder / "ca.crt", folder / certificate],
            check=True, capture_output=True, timeout=LIMIT_S,
        )  # fmt: skip
    subprocess.run([script], check=True, timeout=LIMIT_S)
    assert {path.name: path.read_text() for path in folder.glob("*_password")} == passwords


def test_redis_starts_with_its_configuration_and_asks_for_the_password(tmp_path: Path) -> None:
    server, [port] = tool("redis-server"), free_ports(1)
    text = (COMPOSE / "redis.conf").read_text().replace("port 6379", f"port {port}").replace("/tmp", str(tmp_path))
    process = subprocess.Popen([server, "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        assert process.stdin is not None
        process.stdin.write(f"{text}requirepass sesame\n".encode())
        process.stdin.close()

        def listens() -> bool:
            assert process.poll() is None
            with socket.socket() as trial:
                trial.bind(("127.0.0.2", 0))
                return trial.connect_ex(("127.0.0.1", port)) == 0

        until(listens, "the start of redis")
        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as client, client.makefile("rb") as answers:
            client.sendall(b"PING\r\nAUTH sesame\r\nSET a b\r\nCONFIG GET maxmemory-policy\r\n")
            assert b"NOAUTH" in answers.readline()
            assert [answers.readline() for _ in range(2)] == [b"+OK\r\n"] * 2
            assert b"allkeys-lru\r\n" in [answers.readline() for _ in range(5)]
    finally:
        process.terminate()
        process.wait(LIMIT_S)
