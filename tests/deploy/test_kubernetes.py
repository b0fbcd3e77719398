"""The manifests: as kubectl renders them, as a cluster checks them, and as inferd understands its part of them."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from inferd.health import HealthBoard
from inferd.proto import inference_pb2
from inferd.telemetry.series import OF_MODELS
from inferd.telemetry.server_series import OF_SERVER

from .manifests import DEPLOY, WAYS, Manifest, containers, of_kind, pods, rendered
from .rules import RULES

DEFECTS = sorted((Path(__file__).parent / "defects").glob("*.yaml"))
RPCS = {method.name for method in inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods}
# They change the server, or show what is not the caller's.
FOR_OPERATORS = re.compile(r"Repository|SharedMemory|Setting|Statistics")


# --- the rules ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DEFECTS, ids=lambda path: path.stem)
def test_a_defect_is_found_by_its_rule(path: Path) -> None:
    assert list(RULES[path.stem](tuple(yaml.safe_load_all(path.read_text()))))


def test_every_rule_has_its_defect() -> None:
    assert {path.stem for path in DEFECTS} == RULES.keys()


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("way", WAYS)
def test_no_rule_is_broken(way: str, name: str) -> None:
    assert list(RULES[name](rendered(way))) == []


# --- as a cluster sees them -----------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_each_object_has_the_fields_of_its_kind_and_no_other(way: str) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    checked = 0
    for one in rendered(way):
        try:
            validate.validate(one, validate.latest_version(), strict=True)
            checked += 1
        except validate.SchemaNotFoundError:
            assert "." in one["apiVersion"].partition("/")[0], f"{one['kind']} {one['apiVersion']}"
    assert checked >= 10


@pytest.mark.parametrize("way", WAYS)
def test_no_object_is_there_twice_and_all_are_in_the_namespace(way: str) -> None:
    names = [(one["kind"], one["metadata"]["name"]) for one in rendered(way)]
    assert len(names) == len(set(names))
    outside = {one["kind"] for one in rendered(way) if one["metadata"].get("namespace") != "inferd"}
    assert outside == {"Namespace"}


def test_the_written_manifests_are_what_they_are_made_of() -> None:
    if not rendered(""):
        pytest.skip("kubectl is not installed")
    for path, text in runpy.run_path(str(DEPLOY / "render.py"))["rendered"]().items():
        assert path.read_text() == text, f"{path} is old: make manifests"


# --- as inferd sees them --------------------------------------------------------------------------------


def arguments(objects: tuple[Manifest, ...], folder: Path) -> list[str]:
    """What inferd is started with there, its files in the folder."""
    [(_, pod), *_] = pods(objects)
    [config, *_] = [one for one in of_kind(objects, "ConfigMap") if "config.yaml" in one["data"]]
    (folder / "config.yaml").write_text(config["data"]["config.yaml"])
    [container] = pod["containers"]
    return [one.replace("/etc/inferd/", f"{folder}/") for one in container["args"]]


@pytest.mark.parametrize("way", WAYS)
def test_inferd_takes_its_settings(way: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "inferd", *arguments(rendered(way), tmp_path), "--print-config"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    shown = {words[0]: words[1] for line in done.stdout.splitlines() if (words := line.split())}
    [(_, pod), *_] = pods(rendered(way))
    ports = {port["name"]: port["containerPort"] for port in pod["containers"][0]["ports"]}
    assert ports["grpc-infer"] == int(shown["grpc.port"])
    assert ports["http-status"] == int(shown["http.port"])
    assert ports["http-metrics"] == int(shown["metrics.port"])
    assert ports.get("grpc-health", 0) == int(shown["grpc.health_port"])
    assert shown["models.path"] in {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}


@pytest.mark.parametrize("way", WAYS)
def test_probes_ask_for_what_inferd_answers_in_clear(way: str) -> None:
    board = HealthBoard()
    [(_, pod), *_] = pods(rendered(way))
    [container] = pod["containers"]
    in_clear = 8003 if any("--tls-certificate" in one for one in container["args"]) else 8001
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[probe]["grpc"]
        assert board.status(asked["service"]) is not None
        assert asked["port"] == in_clear


@pytest.mark.parametrize("way", WAYS)
def test_replicas_are_counted_by_what_inferd_exports(way: str) -> None:
    exported = {one.name for one in (*OF_MODELS, *OF_SERVER)}
    named = [
        metric["pods"]["metric"]["name"]
        for one in of_kind(rendered(way), "HorizontalPodAutoscaler")
        for metric in one["spec"]["metrics"]
        if metric["type"] == "Pods"
    ]
    for one in of_kind(rendered(way), "ScaledObject"):
        promql = pytest.importorskip("promql_parser", reason="promql-parser is not installed")
        queries = [trigger["metadata"]["query"] for trigger in one["spec"]["triggers"]]
        for query in queries:
            promql.parse(query)
            named += re.findall(r"inferd_\w+", query)
    assert named
    assert set(named) <= exported


def test_each_metric_that_replicas_are_counted_by_has_a_rule_of_the_adapter() -> None:
    [config] = [one for one in of_kind(rendered("overlays/monitoring"), "ConfigMap") if "adapter.yaml" in one["data"]]
    offered = {rule["name"]["as"] for rule in yaml.safe_load(config["data"]["adapter.yaml"])["rules"]["custom"]}
    [scaler] = of_kind(rendered("overlays/monitoring"), "HorizontalPodAutoscaler")
    wanted = {metric["pods"]["metric"]["name"] for metric in scaler["spec"]["metrics"] if metric["type"] == "Pods"}
    assert wanted <= offered


def test_the_mesh_lets_everybody_infer_and_nobody_else_change_the_server() -> None:
    [policy] = of_kind(rendered("overlays/istio"), "AuthorizationPolicy")
    for_all: list[Any] = [rule for rule in policy["spec"]["rules"] if "from" not in rule]
    paths = {path for rule in for_all for to in rule["to"] for path in to["operation"].get("paths", [])}
    open_ = {path.rpartition("/")[2] for path in paths if path.startswith("/inference.GRPCInferenceService/")}
    assert open_ == {name for name in RPCS if not FOR_OPERATORS.search(name)}
    assert {path for path in paths if path.startswith("/inference")} == {
        f"/inference.GRPCInferenceService/{name}" for name in open_
    }


def test_the_route_of_the_gateway_has_what_everybody_may_call_and_nothing_else() -> None:
    [route] = of_kind(rendered("overlays/gateway-api"), "GRPCRoute")
    methods = [match["method"] for rule in route["spec"]["rules"] for match in rule["matches"]]
    open_ = {one.get("method") for one in methods if one["service"] == "inference.GRPCInferenceService"}
    assert open_ == {name for name in RPCS if not FOR_OPERATORS.search(name)}
    assert {one["service"] for one in methods} == {"inference.GRPCInferenceService", "grpc.health.v1.Health"}


@pytest.mark.parametrize("way", ["overlays/istio-canary", "overlays/istio-mirror"])
def test_a_canary_is_behind_the_same_service_and_counted_by_nobody_else(way: str) -> None:
    deployments = {one["metadata"]["name"]: one["spec"] for one in of_kind(rendered(way), "Deployment")}
    labels = {name: spec["template"]["metadata"]["labels"] for name, spec in deployments.items()}
    [rule] = of_kind(rendered(way), "DestinationRule")
    subsets = {one["name"]: one["labels"] for one in rule["spec"]["subsets"]}
    assert labels.keys() == {"inferd", "inferd-canary"}
    for spec in deployments.values():
        chosen = spec["selector"]["matchLabels"].items()
        assert [name for name, own in labels.items() if chosen <= own.items()] == [
            name for name, one in deployments.items() if one is spec
        ]
    for service in of_kind(rendered(way), "Service"):
        assert all(service["spec"]["selector"].items() <= own.items() for own in labels.values())
    [routes] = of_kind(rendered(way), "VirtualService")
    used = {to["destination"]["subset"] for one in routes["spec"]["http"] for to in one["route"]}
    assert used == subsets.keys()
    for chosen in subsets.values():
        assert sum(chosen.items() <= own.items() for own in labels.values()) == 1


@pytest.mark.parametrize("way", WAYS)
def test_the_network_lets_in_what_is_listened_on(way: str) -> None:
    [policy] = [one for one in of_kind(rendered(way), "NetworkPolicy") if one["metadata"]["name"] == "inferd"]
    let_in = {port["port"] for one in policy["spec"]["ingress"] for port in one["ports"]}
    [(_, pod), *_] = pods(rendered(way))
    listened = {port["containerPort"] for one in containers(pod) for port in one.get("ports", [])}
    assert let_in <= listened
    assert 8001 in let_in


# --- KServe ---------------------------------------------------------------------------------------------


def test_the_runtime_for_kserve_starts_inferd_as_it_is_started_everywhere(tmp_path: Path) -> None:
    runtime = yaml.safe_load((DEPLOY / "kserve" / "runtime.yaml").read_text())
    [container] = runtime["spec"]["containers"]
    [(_, pod), *_] = pods(rendered(""))
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["grpc"] == pod["containers"][0][probe]["grpc"]
    args = [one.replace("/mnt/models", str(tmp_path)) for one in container["args"]]
    command = [sys.executable, "-m", "inferd", *args, "--print-config"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    example = yaml.safe_load((DEPLOY / "kserve" / "example.yaml").read_text())
    asked = example["spec"]["predictor"]["model"]
    assert asked["runtime"] == runtime["metadata"]["name"]
    assert asked["protocolVersion"] in runtime["spec"]["protocolVersions"]
    assert {one["name"] for one in runtime["spec"]["supportedModelFormats"]} == {asked["modelFormat"]["name"]}
