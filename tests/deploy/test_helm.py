"""The chart beside the manifests: it makes the same objects, and each of its values does something."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .manifests import DEPLOY, Manifest, rendered
from .rules import RULES

CHART = DEPLOY / "helm" / "inferd"
DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
GPUS: dict[str, Any] = {
    "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1},
    "resources": {"limits": {"nvidia.com/gpu": "1"}, "requests": {"nvidia.com/gpu": "1"}},
    "autoscaling": {"cpu": 0},
    "nodeSelector": {"nvidia.com/gpu.present": "true"},
}
# Values that the defaults leave empty, and those that another has to be changed for.
FILLED: dict[str, dict[str, Any]] = {
    "image.digest": {"image": {"digest": f"sha256:{'0' * 64}"}},
    "image.pullSecrets": {"image": {"pullSecrets": [{"name": "registry"}]}},
    "models.claim": {"models": {"claim": "models"}},
    "nodeSelector": {"nodeSelector": {"disk": "fast"}},
    "tolerations": {"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]},
    "replicas": {"autoscaling": {"enabled": False}, "replicas": 7},
    "rollingUpdate.maxSurge": {"rollingUpdate": {"maxSurge": 3}},
    "config.models.path": {"config": {"models": {"path": "/elsewhere"}}},
    "image.tag": {"image": {"tag": "1.2.3"}},
    "models.image": {"models": {"image": "other:1"}},
    "tls.issuer.kind": {"tls": {"enabled": True, "issuer": {"kind": "Issuer"}}},
    "tls.issuer.name": {"tls": {"enabled": True, "issuer": {"name": "other"}}},
    "tls.clientCa": {"tls": {"enabled": True, "clientCa": "other"}},
    "istio.host": {"istio": {"enabled": True, "host": "other.example.com"}},
    "istio.credential": {"istio": {"enabled": True, "credential": "other"}},
    "keda.prometheus": {"keda": {"enabled": True, "prometheus": "http://other:9090"}},
    "keda.fallbackReplicas": {"keda": {"enabled": True, "fallbackReplicas": 3}},
}
# Beside it the other values of the same switch have to make a difference of their own.
SWITCHED: dict[str, dict[str, Any]] = {
    path: {path.partition(".")[0]: {"enabled": True}} for path in FILLED if path.startswith(("tls.", "istio.", "keda."))
}
# The ways of kustomize that a value has the same objects for.
SAME: dict[str, dict[str, Any]] = {
    "": {},
    "tls": {"tls": {"enabled": True}},
    "tls+mtls": {"tls": {"enabled": True, "clientCa": "inferd-client-ca"}},
    "auth": {"auth": {"secret": "inferd-auth"}},
    "tls+auth": {"tls": {"enabled": True}, "auth": {"secret": "inferd-auth"}},
    "overlays/istio": {"istio": {"enabled": True}},
    "overlays/keda": {"keda": {"enabled": True}},
    "overlays/monitoring": {"monitoring": {"enabled": True}},
}
PARTS = ("tls", "istio", "keda", "monitoring")
REFUSED: tuple[dict[str, Any], ...] = (
    {"imagePullSecrets": [{"name": "registry"}]},
    {"image": {"tag": "latest"}},
    {"image": {"digest": "sha256:0"}},
    {"models": {"image": "models"}},
    {"models": {"image": "models:latest"}},
    {"config": {"grpc": {"port": 9000}}},
    {"config": {"models": {"path": "models"}}},
    {"config": {"drain": {"grace_ms": "45 s"}}},
    {"preStopSeconds": 0},
    {"autoscaling": {"cpu": 0, "inFlight": 0}},
    {"network": {"callers": []}},
    {"quota": {"pods": 40}},
    {"tls": {"clientCa": "inferd-client-ca"}},
    {"tls": {"enabled": True, "issuer": {"kind": "Authority"}}},
    {"auth": {"secrets": "inferd-auth"}},
    {"istio": {"enabled": True, "host": ""}},
    {"keda": {"enabled": True}, "autoscaling": {"inFlight": 0}},
    {"keda": {"enabled": True}, "autoscaling": {"enabled": False}},
    {"keda": {"enabled": True, "prometheus": "prometheus:9090"}},
    {"monitoring": {"enabled": "yes"}},
)


def made(values: dict[str, Any] | None = None) -> tuple[Manifest, ...]:
    helm = pytest.importorskip("helm_python", reason="helm-python-sdk is not installed")
    files = helm.Chart.load(str(CHART)).render(values, name="inferd", namespace="inferd")
    return tuple(one for path in sorted(files) for one in yaml.safe_load_all(files[path]) if one)


def plain(objects: tuple[Manifest, ...]) -> dict[str, Manifest]:
    """Without what each tool has its own way for: the namespace, a label of kustomize, and the names of settings."""
    found = {}
    for one in objects:
        text = re.sub(r"inferd-config-\w{10}", "inferd-config", json.dumps(one))
        plainer = json.loads(text)
        plainer["metadata"].pop("namespace", None)
        plainer["metadata"].get("labels", {}).pop("app.kubernetes.io/part-of", None)
        if not plainer["metadata"].get("labels", True):
            del plainer["metadata"]["labels"]
        if plainer["kind"] == "ConfigMap":
            plainer["data"] = {name: yaml.safe_load(value) for name, value in plainer["data"].items()}
        found[f"{plainer['kind']} {plainer['metadata']['name']}"] = plainer
    return found


def leaves(values: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        path = f"{above}{name}"
        # What is handed on as it is, whole.
        if isinstance(value, dict) and value and not path.startswith(("quota", "network.", "resources.")):
            yield from leaves(value, f"{path}.")
        else:
            yield path, value


def changed(path: str, value: Any) -> dict[str, Any]:
    if path in FILLED:
        return FILLED[path]
    other: Any
    if isinstance(value, bool):
        other = not value
    elif isinstance(value, int):
        other = value + 1
    elif isinstance(value, str):
        other = f"{value}x"
    elif isinstance(value, list):
        other = [*value, {"added": "label"}]
    else:
        other = {**value, "added": "1"}
    for name in reversed(path.split(".") if not path.startswith("quota") else ["quota"]):
        other = {name: other}
    assert isinstance(other, dict)
    return other


@pytest.mark.parametrize("way", SAME)
def test_the_chart_makes_what_kustomize_makes(way: str) -> None:
    wanted = plain(rendered(way))
    assert wanted.pop("Namespace inferd")
    assert plain(made(SAME[way])) == wanted


@pytest.mark.parametrize(("path", "value"), list(leaves(DEFAULTS)), ids=[path for path, _ in leaves(DEFAULTS)])
def test_each_value_does_something(path: str, value: Any) -> None:
    assert made(changed(path, value)) != made(SWITCHED.get(path, {}))


def test_each_value_is_in_the_schema_and_each_of_the_schema_has_a_value() -> None:
    def same(schema: dict[str, Any], values: dict[str, Any], where: str) -> None:
        if schema.get("additionalProperties", True) is False:
            assert schema["properties"].keys() - {"global"} == values.keys(), where
            for name, part in schema["properties"].items():
                if part.get("type") == "object" and name != "global":
                    same(part, values[name], f"{where}.{name}")

    same(json.loads((CHART / "values.schema.json").read_text()), DEFAULTS, "values")


@pytest.mark.parametrize("values", REFUSED, ids=json.dumps)
def test_what_cannot_be_meant_is_refused(values: dict[str, Any]) -> None:
    helm = pytest.importorskip("helm_python", reason="helm-python-sdk is not installed")
    with pytest.raises(helm.HelmError):
        made(values)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(
    "values",
    [GPUS, {"config": {"drain": {"grace_ms": 90_500}}}, {part: {"enabled": True} for part in PARTS}],
    ids=["gpus", "long-drain", "all-parts"],
)
def test_no_rule_is_broken_by_values(values: dict[str, Any], name: str) -> None:
    assert list(RULES[name](made(copy.deepcopy(values)))) == []


def test_helm_has_no_complaint() -> None:
    helm = pytest.importorskip("helm_python", reason="helm-python-sdk is not installed")
    found = helm.lint(str(CHART), strict=True)
    assert found["errors"] == []
    assert [one for one in found["messages"] if "icon" not in one["error"]] == []


def test_the_version_of_the_chart_is_the_package() -> None:
    version = re.search(r'^version = "(.+)"', (Path(DEPLOY).parent / "pyproject.toml").read_text(), re.MULTILINE)
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert version is not None
    assert chart["appVersion"] == version[1]
