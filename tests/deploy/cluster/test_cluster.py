"""The manifests in a real API server: all ways to apply them, Pod Security, and away with them and on again."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ..manifests import DEPLOY, WAYS, Manifest, of_kind, rendered
from ..test_helm import PARTS, made
from .control_plane import Cluster, running

DEFINITIONS = Path(__file__).resolve().parents[3] / "build" / "tools" / "crds"
DEFECTS = Path(__file__).resolve().parents[1] / "defects"
APPLY = ("apply", "--server-side", "--validate=strict", "--filename=-")

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("cluster")) as started:
        definitions = [json.loads(path.read_text()) for path in sorted(DEFINITIONS.glob("*.json"))]
        if not definitions:
            pytest.skip("the definitions are not there: make tools")
        started.does(*APPLY, objects=definitions)
        started.does("wait", "--for=condition=Established", "customresourcedefinition", "--all", "--timeout=60s")
        yield started


def kept(cluster: Cluster, objects: tuple[Manifest, ...]) -> dict[str, tuple[str, Any]]:
    """Who each object is, and what it is to be."""
    found = json.loads(cluster.does("get", "--output=json", "--filename=-", objects=objects))
    return {
        f"{one['kind']} {one['metadata']['name']}": (
            one["metadata"]["uid"],
            {part: value for part, value in one.items() if part not in ("metadata", "status")},
        )
        for one in found["items"]
    }


def remove(cluster: Cluster, objects: tuple[Manifest, ...]) -> None:
    """All but the namespace: a controller would have to empty it."""
    cluster.does("delete", "--filename=-", objects=[one for one in objects if one["kind"] != "Namespace"])


def test_the_folder_is_applied_as_the_manual_says(cluster: Cluster) -> None:
    cluster.does("apply", "--server-side", "--kustomize", str(DEPLOY))
    first = kept(cluster, rendered(""))
    cluster.does("apply", "--server-side", "--filename", str(DEPLOY / "inferd.yaml"))
    assert kept(cluster, rendered("")) == first
    remove(cluster, rendered(""))


@pytest.mark.parametrize("way", WAYS)
def test_it_is_applied_and_once_more_and_removed_and_applied(cluster: Cluster, way: str) -> None:
    objects = rendered(way)
    cluster.does(*APPLY, objects=objects)
    first = kept(cluster, objects)
    assert len(first) == len(objects)
    cluster.does(*APPLY, objects=objects)
    assert kept(cluster, objects) == first
    remove(cluster, objects)
    cluster.does(*APPLY, objects=objects)
    again = kept(cluster, objects)
    assert [name for name in first if again[name][0] == first[name][0]] == ["Namespace inferd"]
    remove(cluster, objects)


@pytest.mark.parametrize("way", WAYS)
def test_its_pods_are_let_in_and_others_are_not(cluster: Cluster, way: str) -> None:
    cluster.does(*APPLY, objects=rendered(way))
    for one in of_kind(rendered(way), "Deployment"):
        template = copy.deepcopy(one["spec"]["template"])
        pod = {"apiVersion": "v1", "kind": "Pod", **template}
        pod["metadata"] |= {"name": "tried", "namespace": "inferd"}
        admitted = cluster.would_create(pod)
        assert admitted["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"]
        pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
        refused = cluster.kubectl("create", "--dry-run=server", "--filename=-", objects=[pod])
        assert refused.returncode != 0
        assert 'violates PodSecurity "restricted' in refused.stderr
    remove(cluster, rendered(way))


def test_what_the_chart_makes_with_all_its_parts_is_taken(cluster: Cluster) -> None:
    objects = made({"auth": {"secret": "inferd-auth"}, **{part: {"enabled": True} for part in PARTS}})
    cluster.does("create", "namespace", "charted")
    cluster.does(*APPLY, "--namespace=charted", objects=objects)
    cluster.does("delete", "--namespace=charted", "--filename=-", objects=objects)


def test_a_field_in_the_wrong_place_is_refused(cluster: Cluster) -> None:
    objects = list(yaml.safe_load_all((DEFECTS / "security_fields_are_where_they_belong.yaml").read_text()))
    refused = cluster.kubectl(*APPLY, "--dry-run=server", objects=objects)
    assert refused.returncode != 0
    assert "fsGroup" in refused.stderr


def test_settings_for_no_affinity_are_dropped_without_a_word(cluster: Cluster) -> None:
    [service] = yaml.safe_load_all((DEFECTS / "no_affinity_settings_without_affinity.yaml").read_text())
    assert "sessionAffinityConfig" in service["spec"]
    assert "sessionAffinityConfig" not in cluster.would_create(service)["spec"]


def test_kserve_takes_the_runtime(cluster: Cluster) -> None:
    objects = [yaml.safe_load((DEPLOY / "kserve" / f"{name}.yaml").read_text()) for name in ("runtime", "example")]
    cluster.does(*APPLY, "--dry-run=server", "--namespace=default", objects=objects)
