"""Write the manifests that are made of others; `make manifests` calls this.

`deploy/inferd.yaml` is what `kubectl kustomize deploy/` says, for those who apply files, and
`overlays/monitoring/rules.yaml` holds the rules of `monitoring/rules` as the Prometheus operator wants them.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).resolve().parent


def kustomized(folder: Path) -> str:
    """A folder's manifests as one file. Raises CalledProcessError if kustomize refuses it."""
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True)
    return done.stdout


def prometheus_rule() -> str:
    """All groups of rules as one object."""
    groups: list[Any] = []
    for path in sorted((DEPLOY / "monitoring" / "rules").glob("*.yml")):
        groups += yaml.safe_load(path.read_text())["groups"]
    made = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "inferd"},
        "spec": {"groups": groups},
    }
    return yaml.safe_dump(made, sort_keys=False, width=118, allow_unicode=True)


def rendered() -> dict[Path, str]:
    """What each of the files has to hold."""
    note = "# Written by `make manifests`; change what it is made of, not this file.\n"
    return {
        DEPLOY / "inferd.yaml": note + kustomized(DEPLOY),
        DEPLOY / "overlays" / "monitoring" / "rules.yaml": note + prometheus_rule(),
    }


if __name__ == "__main__":
    for path, text in rendered().items():
        path.write_text(text)
