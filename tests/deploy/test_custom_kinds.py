"""Manifests of kinds that others define, against their definitions."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from .manifests import DEPLOY, WAYS, Manifest, rendered

DEFINITIONS = Path(__file__).resolve().parents[2] / "build" / "tools" / "crds"
BESIDE = tuple(
    DEPLOY / path
    for path in ("kserve/runtime.yaml", "kserve/example.yaml", "overlays/gateway-api/gateway-example.yaml")
)


def closed(schema: Any) -> Any:
    """A schema as the API server reads it when it is asked to be strict: what is not named is wrong."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: closed(value) for name, value in schema.items() if not name.startswith("x-")}
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
        made["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if isinstance(schema.get("properties"), dict):
        # Of the properties of one that is named "properties" or "x-..." there is none in these kinds.
        made["properties"] = {name: closed(value) for name, value in schema["properties"].items()}
        if schema.get("type") == "object" and "additionalProperties" not in schema:
            made["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields", False))
    return made


@cache
def validator(kind: str, version: str) -> Any:
    """Of one kind; None where its definition is not there."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    group, _, version = version.partition("/")
    for path in DEFINITIONS.glob(f"*.{group}.json"):
        spec = json.loads(path.read_text())["spec"]
        if spec["names"]["kind"] != kind:
            continue
        for one in spec["versions"]:
            if one["name"] == version and one["served"]:
                schema = closed(one["schema"]["openAPIV3Schema"])
                schema["properties"] |= {name: {} for name in ("apiVersion", "kind", "metadata")}
                return jsonschema.Draft202012Validator(schema)
    return None


def faults(one: Manifest) -> Iterator[str]:
    checks = validator(one["kind"], one["apiVersion"])
    if checks is None:
        yield f"nobody defines {one['kind']} {one['apiVersion']}"
        return
    yield from (f"{one['kind']} {'.'.join(map(str, error.path))}: {error.message}" for error in checks.iter_errors(one))


def custom(objects: tuple[Manifest, ...]) -> list[Manifest]:
    """Those that are not Kubernetes' own, whose groups have no dot but for those of k8s.io that are built in."""
    own = ("networking.k8s.io/v1", "rbac.authorization.k8s.io/v1")
    return [one for one in objects if "." in one["apiVersion"].partition("/")[0] and one["apiVersion"] not in own]


@pytest.fixture(scope="module", autouse=True)
def _defined() -> None:
    if not DEFINITIONS.is_dir():
        pytest.skip("the definitions are not there: make tools")


@pytest.mark.parametrize("way", WAYS)
def test_each_object_is_as_its_kind_is_defined(way: str) -> None:
    found = custom(rendered(way))
    if way.partition("/")[2] in ("istio", "istio-canary", "istio-mirror", "gateway-api", "keda", "monitoring", "vpa"):
        assert found
    assert [fault for one in found for fault in faults(one)] == []


@pytest.mark.parametrize("path", BESIDE, ids=lambda path: path.name)
def test_what_is_applied_by_itself_is_as_its_kind_is_defined(path: Path) -> None:
    assert [fault for one in yaml.safe_load_all(path.read_text()) for fault in faults(one)] == []


@pytest.mark.parametrize("way", WAYS)
def test_a_field_that_is_not_there_is_found(way: str) -> None:
    for one in custom(rendered(way)):
        wrong = copy.deepcopy(one)
        wrong["spec"]["nothing"] = 1
        assert any("nothing" in fault for fault in faults(wrong))
