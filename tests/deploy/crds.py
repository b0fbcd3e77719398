"""Take the definitions of the kinds that manifests use from the modules of those who make them, for `make tools`.

Each module is as it was looked up once: Go's own digest of it is in LOCKED and compared. What is kept are the
definitions alone, as JSON, which is read much faster than their YAML.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml


class Module(NamedTuple):
    """A module of Go, the files in it, and the kinds to keep."""

    name: str
    digest: str
    files: tuple[str, ...]
    kinds: frozenset[str]


LOCKED = (
    Module(
        "istio.io/api@v1.32.0", "h1:37mJvg9I0biYZAEQF+MATs4FNeCpXEIVO3LFpVb6iNM=",
        ("kubernetes/customresourcedefinitions.gen.yaml",),
        frozenset({"Gateway", "VirtualService", "DestinationRule", "PeerAuthentication", "AuthorizationPolicy"}),
    ),
    Module(
        "sigs.k8s.io/gateway-api@v1.6.3", "h1:lKpJa5bGlraC/QeACvCpsHLdmO6y0iKfzVl6gzaFEYc=",
        ("config/crd/standard/gateway.networking.k8s.io_gateways.yaml",
         "config/crd/standard/gateway.networking.k8s.io_grpcroutes.yaml"),
        frozenset({"Gateway", "GRPCRoute"}),
    ),
    Module(
        "github.com/kedacore/keda/v2@v2.21.0", "h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps=",
        ("config/crd/bases/keda.sh_scaledobjects.yaml",), frozenset({"ScaledObject"}),
    ),
    Module(
        "github.com/prometheus-operator/prometheus-operator@v0.85.0", "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
        ("example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
         "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml"),
        frozenset({"PodMonitor", "PrometheusRule"}),
    ),
    Module(
        "k8s.io/autoscaler/vertical-pod-autoscaler@v1.8.1", "h1:Pe8bV1wozN4gOKO1rleiIY5alIyAXN+DnXDbXQcL4fI=",
        ("deploy/vpa-v1-crd-gen.yaml",), frozenset({"VerticalPodAutoscaler"}),
    ),
    Module(
        "github.com/cert-manager/cert-manager@v1.21.2", "h1:UWgoYM+KLNtRlqmoWOKjKBOBUPVHeepQ6/ac3ERJW68=",
        ("deploy/crds/cert-manager.io_certificates.yaml",), frozenset({"Certificate"}),
    ),
    Module(
        "github.com/kserve/kserve@v0.16.0", "h1:kDkcAU5VMiZf4zhdDXH+UdAIgzXhs10GMv0d9r4qvTs=",
        ("config/crd/full/serving.kserve.io_clusterservingruntimes.yaml",
         "config/crd/full/serving.kserve.io_inferenceservices.yaml"),
        frozenset({"ClusterServingRuntime", "InferenceService"}),
    ),
)  # fmt: skip


def definitions(module: Module, source: Path) -> Iterator[dict[str, Any]]:
    """The CustomResourceDefinitions that are kept, of an unpacked module."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for file in module.files:
        for one in yaml.load_all((source / file).read_text(), loader):
            if one and one["kind"] == "CustomResourceDefinition" and one["spec"]["names"]["kind"] in module.kinds:
                yield one


def take(into: Path) -> None:
    """Fetch each module and write its definitions. Raises SystemExit where a module is not the one of LOCKED."""
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as nowhere:
        for module in LOCKED:
            command = ["go", "mod", "download", "-json", module.name]
            done = subprocess.run(command, cwd=nowhere, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{module.name} cannot be had: {done.stdout or done.stderr}")
            got = json.loads(done.stdout)
            if got["Sum"] != module.digest:
                sys.exit(f"{module.name} is {got['Sum']} and not {module.digest}")
            for one in definitions(module, Path(got["Dir"])):
                (into / f"{one['metadata']['name']}.json").write_text(json.dumps(one))


if __name__ == "__main__":
    take(Path(sys.argv[1]))
