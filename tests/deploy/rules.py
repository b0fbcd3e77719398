"""What a manifest for a gRPC server must not do: each rule yields complaints, and has its defect in defects/."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from .dockerfiles import RUNS_CODE
from .manifests import Manifest, containers, of_kind, pods

Objects = tuple[Manifest, ...]
Rule = Callable[[Objects], Iterator[str]]
RULES: dict[str, Rule] = {}

GRPC_PORT = 8001
INSIDE_PORTS = {8080, 9090}
GRPC_PATH = re.compile(r"/[a-z][\w.]*\.\w+/\w*")
# Retrying these runs nothing twice: the request has not reached a model.
NEVER_RAN = {"connect-failure", "refused-stream", "unavailable", "reset-before-request"}
IMAGE = re.compile(r":\d+\.\d+\.\d+[\w.-]*$|@sha256:[0-9a-f]{64}$")
GONE_VERSIONS = {
    "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3", "security.istio.io/v1beta1", "autoscaling/v1",
    "autoscaling/v2beta1", "autoscaling/v2beta2", "policy/v1beta1",
}  # fmt: skip
OF_ONE_CLOUD = {"node.kubernetes.io/instance-type", "accelerator"}
POD_FIELDS = {"fsGroup", "fsGroupChangePolicy", "supplementalGroups", "sysctls"}
VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip


def rule(check: Rule) -> Rule:
    """Put it among the rules, under its name."""
    RULES[check.__name__] = check
    return check


def _serves(port: Manifest) -> bool:
    """Whether a port of a Service leads to gRPC."""
    return GRPC_PORT in (port["port"], port.get("targetPort")) or port.get("targetPort") == "grpc-infer"


def _gpus(objects: Objects) -> bool:
    limits = [one.get("resources", {}).get("limits", {}) for _, pod in pods(objects) for one in containers(pod)]
    return any("nvidia.com/gpu" in one for one in limits)


# --- what the API server refuses, or what never starts --------------------------------------------------


@rule
def no_affinity_settings_without_affinity(objects: Objects) -> Iterator[str]:
    for one in of_kind(objects, "Service"):
        if one["spec"].get("sessionAffinityConfig") and one["spec"].get("sessionAffinity", "None") == "None":
            yield f"Service {one['metadata']['name']} has settings for an affinity that it does not have"


@rule
def secrets_come_from_elsewhere(objects: Objects) -> Iterator[str]:
    for one in of_kind(objects, "Secret"):
        if one.get("data") or one.get("stringData"):
            yield f"Secret {one['metadata']['name']} is in a repository for everybody to read"
        for key, value in one.get("data", {}).items():
            try:
                base64.b64decode(value, validate=True)
            except binascii.Error:
                yield f"{key} of Secret {one['metadata']['name']} is not base64"


@rule
def security_fields_are_where_they_belong(objects: Objects) -> Iterator[str]:
    for name, pod in pods(objects):
        for one in containers(pod):
            for field in POD_FIELDS & one.get("securityContext", {}).keys():
                yield f"{field} of container {one['name']} of {name} is a field of pods"


@rule
def references_lead_somewhere(objects: Objects) -> Iterator[str]:
    there = {(one["kind"], one["metadata"]["name"]) for one in objects}
    # Who keeps a certificate writes the Secret; the others are the operator's own, as components/mtls and auth say.
    there |= {("Secret", one["spec"]["secretName"]) for one in of_kind(objects, "Certificate")}
    there |= {("Secret", "inferd-client-ca"), ("Secret", "inferd-auth")}
    for name, pod in pods(objects):
        wanted = [("ServiceAccount", pod.get("serviceAccountName", "default"))]
        for volume in pod.get("volumes", []):
            wanted += [("ConfigMap", volume["configMap"]["name"])] if "configMap" in volume else []
            wanted += [("Secret", volume["secret"]["secretName"])] if "secret" in volume else []
            if claim := volume.get("persistentVolumeClaim"):
                wanted.append(("PersistentVolumeClaim", claim["claimName"]))
        mounted = {mount["name"] for one in containers(pod) for mount in one.get("volumeMounts", [])}
        for missing in sorted(mounted - {volume["name"] for volume in pod.get("volumes", [])}):
            yield f"{name} mounts a volume {missing} that it does not have"
        for kind, wants in wanted:
            if (kind, wants) not in there and wants != "default":
                yield f"{name} needs a {kind} {wants} that nobody makes"
    for one in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject", "VerticalPodAutoscaler"):
        target = one["spec"].get("scaleTargetRef") or one["spec"]["targetRef"]
        if (target.get("kind", "Deployment"), target["name"]) not in there:
            yield f"{one['kind']} {one['metadata']['name']} scales a {target['name']} that is not there"
    for one in of_kind(objects, "VirtualService"):
        for gateway in one["spec"].get("gateways", []):
            if gateway != "mesh" and ("Gateway", gateway) not in there:
                yield f"VirtualService {one['metadata']['name']} is at a Gateway {gateway} that nobody makes"


@rule
def nodes_are_chosen_by_what_they_have(objects: Objects) -> Iterator[str]:
    for name, pod in pods(objects):
        nodes = pod.get("affinity", {}).get("nodeAffinity", {})
        labels = {*pod.get("nodeSelector", {}), *re.findall(r"'key': '([^']+)'", str(nodes))}
        for label in sorted(labels & OF_ONE_CLOUD):
            yield f"{name} runs on one cloud's machines only, by {label}"
        gpus = any("nvidia.com/gpu" in one.get("resources", {}).get("limits", {}) for one in containers(pod))
        if gpus and not any(label.startswith("nvidia.com/gpu") for label in labels):
            yield f"{name} asks for a GPU and not for a node that has one"
    for one in of_kind(objects, "Service"):
        for annotation in one["metadata"].get("annotations", {}):
            if "load-balancer" in annotation and "aws" in annotation:
                yield f"Service {one['metadata']['name']} is for one cloud, by {annotation}"


@rule
def images_have_a_version(objects: Objects) -> Iterator[str]:
    for name, pod in pods(objects):
        for one in containers(pod):
            if not IMAGE.search(one["image"]):
                yield f"container {one['name']} of {name} is whatever {one['image']} is today"


@rule
def versions_of_the_api_are_served(objects: Objects) -> Iterator[str]:
    for one in objects:
        if one["apiVersion"] in GONE_VERSIONS:
            yield f"{one['kind']} {one['metadata']['name']} is {one['apiVersion']}, which there is a newer one of"


# --- what is wrong for gRPC -----------------------------------------------------------------------------


@rule
def probes_speak_grpc(objects: Objects) -> Iterator[str]:
    for name, pod in pods(objects):
        for one in pod["containers"]:
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                if "grpc" not in one.get(probe, {}):
                    yield f"{probe} of container {one['name']} of {name} asks no gRPC server"


@rule
def calls_can_be_spread(objects: Objects) -> Iterator[str]:
    """A balanced address spreads connections, and gRPC has one for all calls."""
    services = of_kind(objects, "Service")
    headless = [one["spec"]["selector"] for one in services if one["spec"].get("clusterIP") == "None"]
    for one in services:
        if not any(map(_serves, one["spec"]["ports"])):
            continue
        if one["spec"]["selector"] not in headless:
            yield f"Service {one['metadata']['name']} has no headless one beside it"
        if one["spec"].get("type") in ("LoadBalancer", "NodePort"):
            yield f"Service {one['metadata']['name']} spreads connections, each with all calls of a client"


@rule
def only_ready_replicas_are_found(objects: Objects) -> Iterator[str]:
    for one in of_kind(objects, "Service"):
        if one["spec"].get("publishNotReadyAddresses"):
            yield f"Service {one['metadata']['name']} names replicas that load or drain"


@rule
def ports_say_that_they_speak_grpc(objects: Objects) -> Iterator[str]:
    for one in of_kind(objects, "Service"):
        for port in one["spec"]["ports"]:
            named = port.get("name", "").startswith("grpc") and port.get("appProtocol") == "kubernetes.io/h2c"
            if _serves(port) and not named:
                yield f"meshes take port {port['port']} of Service {one['metadata']['name']} for HTTP/1.1"
            if _serves(port) and port.get("appProtocol") == "https":
                yield f"port {port['port']} of Service {one['metadata']['name']} promises TLS that is not there"


@rule
def routes_match_paths_of_grpc(objects: Objects) -> Iterator[str]:
    for one in of_kind(objects, "VirtualService"):
        for route in one["spec"]["http"]:
            for match in route.get("match", []):
                path = next(iter(match["uri"].values()))
                if not GRPC_PATH.fullmatch(path):
                    yield f"no call has the path {path} of VirtualService {one['metadata']['name']}"
        if "mesh" not in one["spec"].get("gateways", ["mesh"]):
            yield f"VirtualService {one['metadata']['name']} is not for callers inside the mesh"


@rule
def deadlines_are_the_clients(objects: Objects) -> Iterator[str]:
    for one in of_kind(objects, "VirtualService"):
        for route in one["spec"]["http"]:
            if "timeout" in route:
                yield f"VirtualService {one['metadata']['name']} cuts calls whose clients would wait"


@rule
def only_what_never_ran_is_tried_again(objects: Objects) -> Iterator[str]:
    for one in of_kind(objects, "VirtualService"):
        for route in one["spec"]["http"]:
            retries = route.get("retries")
            if retries is None:
                yield f"VirtualService {one['metadata']['name']} leaves retries to habits that run models twice"
                continue
            conditions = set(retries.get("retryOn", "").split(","))
            if conditions - NEVER_RAN or "perTryTimeout" in retries:
                yield f"VirtualService {one['metadata']['name']} tries again what may have run"


@rule
def connections_are_kept(objects: Objects) -> Iterator[str]:
    for one in of_kind(objects, "DestinationRule"):
        for part in (one["spec"], *one["spec"].get("subsets", ())):
            http = part.get("trafficPolicy", {}).get("connectionPool", {}).get("http", {})
            if http.get("maxRequestsPerConnection", 0):
                yield f"DestinationRule {one['metadata']['name']} makes connections anew for calls"


@rule
def ejection_can_happen(objects: Objects) -> Iterator[str]:
    for one in of_kind(objects, "DestinationRule"):
        outliers = one["spec"].get("trafficPolicy", {}).get("outlierDetection", {})
        if outliers.get("consecutiveGatewayErrors", 0) and outliers.get("consecutive5xxErrors", 5):
            yield f"of the two counts of DestinationRule {one['metadata']['name']} one has no effect"
        if outliers and (outliers.get("consecutiveGatewayErrors", 0) or outliers.get("consecutive5xxErrors", 5)):
            yield f"to DestinationRule {one['metadata']['name']} a deadline that was too short is a replica that is ill"
        if outliers.get("minHealthPercent"):
            yield f"DestinationRule {one['metadata']['name']} ejects nobody where there are few"


@rule
def selectors_have_no_version(objects: Objects) -> Iterator[str]:
    for one in of_kind(objects, "Service", "Deployment"):
        selector = one["spec"]["selector"]
        if any("version" in label for label in selector.get("matchLabels", selector)):
            yield f"behind {one['kind']} {one['metadata']['name']} there can be only one version"


@rule
def times_of_draining_add_up(objects: Objects) -> Iterator[str]:
    configs = {one["metadata"]["name"]: one["data"] for one in of_kind(objects, "ConfigMap")}
    for name, pod in pods(objects):
        drains = [
            yaml.safe_load(configs[volume["configMap"]["name"]].get("config.yaml", "")).get("drain", {})
            for volume in pod.get("volumes", [])
            if "configMap" in volume and "config.yaml" in configs.get(volume["configMap"]["name"], {})
        ]
        drain = drains[0] if drains else {"grace_ms": 30_000}
        hooks = [one.get("lifecycle", {}).get("preStop", {}) for one in pod["containers"]]
        pauses_s = [hook["sleep"]["seconds"] for hook in hooks if "sleep" in hook]
        if not pauses_s:
            yield f"{name} is gone before balancers know of it"
        needed_s = max(pauses_s, default=0) + (drain.get("lame_duck_ms", 0) + drain.get("grace_ms", 30_000)) / 1000
        if pod.get("terminationGracePeriodSeconds", 30) < needed_s + 5:
            yield f"{name} is killed before it has answered: it may need {needed_s:g} s"


# --- scaling --------------------------------------------------------------------------------------------


@rule
def scaling_follows_work(objects: Objects) -> Iterator[str]:
    for one in of_kind(objects, "HorizontalPodAutoscaler"):
        for metric in one["spec"]["metrics"]:
            name = one["metadata"]["name"]
            kind = metric["type"]
            if kind in ("External", "Object") or "latency" in str(metric):
                yield f"HorizontalPodAutoscaler {name} follows what more replicas do not divide"
            if kind == "Resource":
                yield f"HorizontalPodAutoscaler {name} counts what sidecars take"
            if _gpus(objects) and kind in ("Resource", "ContainerResource"):
                yield f"HorizontalPodAutoscaler {name} looks at the CPU of what runs on GPUs"
    for one in of_kind(objects, "VerticalPodAutoscaler"):
        if one["spec"].get("updatePolicy", {}).get("updateMode") != "Off":
            yield f"VerticalPodAutoscaler {one['metadata']['name']} acts beside the horizontal one"


@rule
def what_is_scaled_has_no_number(objects: Objects) -> Iterator[str]:
    scaled = {one["spec"]["scaleTargetRef"]["name"] for one in of_kind(objects, "HorizontalPodAutoscaler")}
    for one in of_kind(objects, "Deployment"):
        if "replicas" in one["spec"] and one["metadata"]["name"] in scaled:
            yield f"each apply sets the replicas of Deployment {one['metadata']['name']} back"


@rule
def replicas_on_gpus_make_room_first(objects: Objects) -> Iterator[str]:
    for one in of_kind(objects, "Deployment"):
        rolling = one["spec"].get("strategy", {}).get("rollingUpdate", {})
        if _gpus((one,)) and rolling.get("maxSurge", "25%") != 0:
            yield f"a new replica of Deployment {one['metadata']['name']} waits for a GPU that nobody leaves"


# --- what is unsafe -------------------------------------------------------------------------------------


@rule
def what_is_for_operators_stays_inside(objects: Objects) -> Iterator[str]:
    for one in of_kind(objects, "Service"):
        ports = {port["port"] for port in one["spec"]["ports"]}
        if one["spec"].get("type") in ("LoadBalancer", "NodePort") and ports & INSIDE_PORTS:
            yield f"Service {one['metadata']['name']} shows metrics to the world"


@rule
def the_network_is_closed(objects: Objects) -> Iterator[str]:
    policies = of_kind(objects, "NetworkPolicy")
    if of_kind(objects, "Deployment") and not any(
        not one["spec"]["podSelector"] and set(one["spec"].get("policyTypes", [])) == {"Ingress", "Egress"}
        for one in policies
    ):
        yield "what no NetworkPolicy names is open"
    for one in policies:
        for part, where in (("egress", "to"), ("ingress", "from")):
            for way in one["spec"].get(part, []):
                if not way.get(where):
                    yield f"{part} of NetworkPolicy {one['metadata']['name']} is open to all addresses"
        both = [
            [peer["podSelector"] for way in one["spec"].get(part, []) for peer in way.get(where, []) if len(peer) == 1
             and "podSelector" in peer]
            for part, where in (("egress", "to"), ("ingress", "from"))
        ]  # fmt: skip
        for peer in both[1]:
            if peer in both[0]:
                yield f"NetworkPolicy {one['metadata']['name']} lets in whom inferd calls: {peer}"


@rule
def the_network_lets_out_what_is_needed(objects: Objects) -> Iterator[str]:
    meshed = of_kind(objects, "VirtualService", "DestinationRule", "PeerAuthentication")
    for one in of_kind(objects, "NetworkPolicy"):
        ports = {port["port"] for way in one["spec"].get("egress", []) for port in way.get("ports", [])}
        if not ports:
            continue
        if 4317 not in ports:
            yield f"past NetworkPolicy {one['metadata']['name']} no trace comes out"
        if meshed and 15012 not in ports:
            yield f"past NetworkPolicy {one['metadata']['name']} no sidecar gets a certificate"


@rule
def pods_are_restricted(objects: Objects) -> Iterator[str]:
    """Pod Security's level of that name, and a root that nobody writes to."""
    for name, pod in pods(objects):
        own: Any = pod.get("securityContext", {})
        if not own.get("runAsNonRoot") or own.get("runAsUser", 0) == 0:
            yield f"{name} runs as root"
        if own.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{name} may call all of the kernel"
        if pod.get("automountServiceAccountToken", True):
            yield f"{name} holds a token of the cluster"
        for volume in pod.get("volumes", []):
            for kind in volume.keys() - VOLUMES - {"name"}:
                yield f"{name} mounts a {kind}"
        for one in containers(pod):
            context = one.get("securityContext", {})
            if context.get("allowPrivilegeEscalation", True) or context.get("capabilities", {}).get("drop") != ["ALL"]:
                yield f"container {one['name']} of {name} keeps privileges"
            if not context.get("readOnlyRootFilesystem"):
                yield f"container {one['name']} of {name} can change its own files"
            if not one.get("resources", {}).get("limits", {}).get("memory"):
                yield f"container {one['name']} of {name} may take all memory"
            if any(RUNS_CODE.search(str(given.get("value", ""))) for given in one.get("env", [])):
                yield f"container {one['name']} of {name} reads a model that is a program"
            if any("secretRef" in source for source in one.get("envFrom", [])):
                yield f"container {one['name']} of {name} has secrets in its environment"


# --- what is out of date or missing ---------------------------------------------------------------------


@rule
def injection_is_a_label(objects: Objects) -> Iterator[str]:
    for one in of_kind(objects, "Deployment"):
        if "sidecar.istio.io/inject" in one["spec"]["template"]["metadata"].get("annotations", {}):
            yield f"Deployment {one['metadata']['name']} asks for its sidecar by an annotation"


@rule
def gpus_have_a_quota(objects: Objects) -> Iterator[str]:
    for one in of_kind(objects, "ResourceQuota"):
        if "requests.nvidia.com/gpu" not in one["spec"]["hard"]:
            yield f"ResourceQuota {one['metadata']['name']} gives away all GPUs"


@rule
def replicas_are_in_several_zones(objects: Objects) -> Iterator[str]:
    for name, pod in pods(objects):
        keys = {one["topologyKey"] for one in pod.get("topologySpreadConstraints", [])}
        if "topology.kubernetes.io/zone" not in keys:
            yield f"{name} may be in one zone as a whole"
