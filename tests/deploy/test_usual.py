"""Manifests as they are usually written for HTTP/1.1, in usual/: each thing that is wrong with them is found by a rule.

The rows: A is refused or dead on arrival, B wrong for gRPC, C unsafe, D weak. Every complaint is one of a rule that
holds for what deploy/ ships: test_kubernetes.py, test_helm.py, test_compose.py and this file say so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest
import yaml

from . import charts, dockerfiles, images, stacks
from .manifests import DEPLOY, Manifest
from .rules import RULES
from .test_compose import composed

USUAL = Path(__file__).parent / "usual"
COMPOSE, DOCKERFILE, DOCKERFILE_CUDA, CHART, RENDERED = "compose", "Dockerfile", "Dockerfile.cuda", "chart", "rendered"

# Row, what is wrong, and the rules that find it: the name of one of RULES, or one of the files above, and what it says.
TABLE: Final[dict[str, tuple[str, tuple[tuple[str, str], ...]]]] = {
    "A1": ("settings of an affinity that is off", (("no_affinity_settings_without_affinity", "does not have"),)),
    "A2": ("a key that is no base64", (("secrets_come_from_elsewhere", "tls.key .* is not base64"),)),
    "A3": (
        "fsGroup at a container",
        ((RENDERED, "security_fields_are_where_they_belong: fsGroup"), (CHART, "the same securityContext")),
    ),
    "A4": (
        "what is named and nowhere made",
        (
            ("references_lead_somewhere", "ServiceAccount scorer-account"),
            ("references_lead_somewhere", "PersistentVolumeClaim scorer-models"),
            ("references_lead_somewhere", "Gateway scoring-gateway"),
        ),
    ),
    "A5": (
        "whatever Prometheus is today, with a flag that it no longer has",
        ((COMPOSE, "prometheus: prom/prometheus:latest is not one"), (COMPOSE, "prometheus: must not .*alertmanager")),
    ),
    "A6": ("replicas that want one port", ((COMPOSE, "scorer: of its replicas one alone"),)),
    "A7": (
        "one cloud's machines, and GPUs on those without",
        (
            ("nodes_are_chosen_by_what_they_have", "instance-type"),
            ("nodes_are_chosen_by_what_they_have", "accelerator"),
            ("nodes_are_chosen_by_what_they_have", "asks for a GPU"),
            ("nodes_are_chosen_by_what_they_have", "Service .*aws"),
        ),
    ),
    "A8": (
        "a base that is not there, with another Python than pip's",
        ((DOCKERFILE_CUDA, "cuda:11.8-devel-ubuntu20.04 is not one version"), (DOCKERFILE_CUDA, "another Python")),
    ),
    "A9": ("an editable install that is copied", ((DOCKERFILE, "editable"),)),
    "A10": (
        "charts of others that cannot be had or turned off",
        ((CHART, "no value turns its redis off"), (CHART, "whatever fits"), (CHART, "left the catalogue")),
    ),
    "A11": (
        "values that nobody reads",
        (
            (CHART, "no template reads global.imagePullSecrets"),
            (CHART, "read imagePullSecrets, which no value is"),
            (CHART, "no template reads redis.enabled"),
            (CHART, "upper makes one word"),
        ),
    ),
    "A12": (
        "plugins from the network, and what Compose no longer reads",
        ((COMPOSE, "grafana: fetches plugins"), (COMPOSE, "grafana: .*not one version"), (COMPOSE, "obsolete")),
    ),
    "B1": ("probes of HTTP", (("probes_speak_grpc", "livenessProbe"),)),
    "B2": ("a balancer of connections", (("calls_can_be_spread", "spreads connections"),)),
    "B3": ("addresses of replicas that load or drain", (("only_ready_replicas_are_found", "load or drain"),)),
    "B4": (
        "ports that say HTTP/1.1, and TLS that is not there",
        (("ports_say_that_they_speak_grpc", "port 80 .*HTTP/1.1"), ("ports_say_that_they_speak_grpc", "promises TLS")),
    ),
    "B5": (
        "routes that match no call",
        (("routes_match_paths_of_grpc", "the path /api/"), ("routes_match_paths_of_grpc", "inside the mesh")),
    ),
    "B6": ("models run four times", (("only_what_never_ran_is_tried_again", "may have run"),)),
    "B7": ("a connection for each call", (("connections_are_kept", "anew"),)),
    "B8": (
        "an ejection that has no effect",
        (("ejection_can_happen", "no effect"), ("ejection_can_happen", "where there are few")),
    ),
    "B9": (
        "a version in selectors",
        (("selectors_have_no_version", "Service scorer "), ("selectors_have_no_version", "Deployment scorer ")),
    ),
    "B10": (
        "calls cut when a replica goes, or after 30 s",
        (
            ("times_of_draining_add_up", "before balancers know"),
            ("times_of_draining_add_up", "is killed"),
            ("deadlines_are_the_clients", "cuts calls"),
        ),
    ),
    "B11": (
        "two scalers, by CPU and memory, of what runs on a GPU",
        (
            ("scaling_follows_work", "CPU of what runs on GPUs"),
            ("scaling_follows_work", "what sidecars take"),
            ("scaling_follows_work", "acts beside"),
        ),
    ),
    "B12": ("scaling by latency and by the rate", (("scaling_follows_work", "do not divide"),)),
    "B13": ("a number of replicas beside a scaler", (("what_is_scaled_has_no_number", "sets the replicas"),)),
    "B14": ("a new replica that waits for a GPU", (("replicas_on_gpus_make_room_first", "nobody leaves"),)),
    "C1": ("secrets in the repository", (("secrets_come_from_elsewhere", "for everybody to read"),)),
    "C2": (
        "metrics, stores and their deletion for everybody",
        (
            ("what_is_for_operators_stays_inside", "shows metrics"),
            *((COMPOSE, f"{name}: port .* is published") for name in ("redis", "postgres", "elasticsearch")),
            (COMPOSE, "elasticsearch: answers whoever asks"),
            (COMPOSE, "prometheus: must not .*admin-api"),
        ),
    ),
    "C3": (
        "a network that is open where it should not be, and closed where it has to be open",
        (
            ("the_network_is_closed", "egress .*open to all"),
            ("the_network_is_closed", "lets in whom inferd calls: .*redis"),
            ("the_network_is_closed", "no NetworkPolicy names"),
            ("the_network_lets_out_what_is_needed", "certificate"),
            ("the_network_lets_out_what_is_needed", "trace"),
        ),
    ),
    "C4": (
        "models that are programs, root, compilers, a root that can be written, secrets in the environment",
        (
            ("pods_are_restricted", "a model that is a program"),
            ("pods_are_restricted", "change its own files"),
            ("pods_are_restricted", "secrets in its environment"),
            (DOCKERFILE, "a program that runs"),
            (DOCKERFILE_CUDA, "is root"),
            (DOCKERFILE_CUDA, "has compilers"),
        ),
    ),
    "D1": ("injection by an annotation", (("injection_is_a_label", "annotation"),)),
    "D2": ("an old version of Istio's API", (("versions_of_the_api_are_served", "VirtualService .*v1beta1"),)),
    "D3": (
        "curl for health, on bases that are mended no more",
        (
            (DOCKERFILE, "health needs a client"),
            (DOCKERFILE, "python:3.9.* mended by nobody"),
            (DOCKERFILE_CUDA, "ubuntu20.04 is mended by nobody"),
        ),
    ),
    "D4": (
        "GPUs without a quota, replicas in one zone",
        (("gpus_have_a_quota", "all GPUs"), ("replicas_are_in_several_zones", "one zone")),
    ),
}
PAIRS: Final = [(row, *pair) for row, (_, pairs) in TABLE.items() for pair in pairs]
NAMES: Final = [f"{row}-{where}-{n}" for n, (row, where, _) in enumerate(PAIRS)]


@cache
def complaints(where: str) -> tuple[str, ...]:
    """What a rule, or all rules for a file, say of what is usual."""
    if where == COMPOSE:
        stack, said = composed(USUAL / "compose.yaml")
        return (*stacks.faults(stack), said)
    if where in (DOCKERFILE, DOCKERFILE_CUDA):
        return tuple(dockerfiles.faults((USUAL / where).read_text()))
    if where == CHART:
        return tuple(charts.faults(USUAL / "chart"))
    if where == RENDERED:
        return tuple(f"{name}: {said}" for name, rule in RULES.items() for said in rule(made()))
    return tuple(RULES[where](tuple(yaml.safe_load_all((USUAL / "kubernetes.yaml").read_text()))))


def made() -> tuple[Manifest, ...]:
    """What the chart makes."""
    helm = pytest.importorskip("helm_python", reason="helm-python-sdk is not installed")
    chart = helm.Chart.load(str(USUAL / "chart"))
    files = chart.render({}, name="scoring", namespace="scoring")
    return tuple(one for text in files.values() for one in yaml.safe_load_all(text) if one)


@pytest.mark.parametrize(("row", "where", "said"), PAIRS, ids=NAMES)
def test_what_is_wrong_is_found(row: str, where: str, said: str) -> None:
    assert [one for one in complaints(where) if re.search(said, one)], f"{TABLE[row][0]}: {complaints(where)}"


def test_all_rows_are_there() -> None:
    wanted = [f"{letter}{n}" for letter, last in (("A", 12), ("B", 14), ("C", 4), ("D", 4)) for n in range(1, last + 1)]
    assert list(TABLE) == wanted


def test_every_rule_for_manifests_finds_something_there() -> None:
    found = {where for _, where, _ in PAIRS} | {said.partition(":")[0] for _, where, said in PAIRS if where == RENDERED}
    # That file has a version of its image, as is usual; that of Compose has those without.
    assert found >= RULES.keys() - {"images_have_a_version"}


# --- and nothing of it is in what is shipped ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cuda"])
def test_our_dockerfiles_have_no_fault(name: str) -> None:
    assert list(dockerfiles.faults((DEPLOY.parent / name).read_text())) == []


def test_our_chart_has_no_fault() -> None:
    assert list(charts.faults(DEPLOY / "helm" / "inferd")) == []


def shipped() -> Iterator[tuple[str, str]]:
    for file, references in images.shipped().items():
        yield from ((file, reference) for reference in references)


@pytest.mark.parametrize(("file", "reference"), list(shipped()))
def test_an_image_is_of_one_version_and_where_somebody_else_makes_it_of_one_digest(file: str, reference: str) -> None:
    assert list(images.faults(reference)) == []


def test_the_one_that_has_a_tag_only_is_still_there() -> None:
    assert {reference.partition(":")[0] for _, reference in shipped()} >= images.BY_TAG_ONLY
