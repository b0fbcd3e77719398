"""What kubectl makes of deploy/: one list of objects for each way to apply it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

Manifest = dict[str, Any]

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
OVERLAYS = sorted(path.name for path in (DEPLOY / "overlays").iterdir())
COMPONENTS = (("models-pvc",), ("models-init",), ("tls",), ("tls", "mtls"), ("auth",), ("tls", "auth"))
WAYS = ("", *(f"overlays/{name}" for name in OVERLAYS), *("+".join(names) for names in COMPONENTS))


@cache
def rendered(way: str) -> tuple[Manifest, ...]:
    """The objects of deploy/ itself, of an overlay, or of the base with components (`tls+mtls`)."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    if not way or way.startswith("overlays/"):
        return _kustomized(DEPLOY / way)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "tried"  # kustomize takes relative paths only
        folder.mkdir()
        for part in ("base", "components"):
            shutil.copytree(DEPLOY / part, Path(made) / part)
        components = [f"../components/{name}" for name in way.split("+")]
        kustomization = {"namespace": "inferd", "resources": ["../base"], "components": components}
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return _kustomized(folder)


def _kustomized(folder: Path) -> tuple[Manifest, ...]:
    command = ["kubectl", "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def of_kind(objects: tuple[Manifest, ...], *kinds: str) -> list[Manifest]:
    """Those of these kinds."""
    return [one for one in objects if one["kind"] in kinds]


def pods(objects: tuple[Manifest, ...]) -> list[tuple[str, Manifest]]:
    """Whose pods they are, and the pods' own part."""
    found = of_kind(objects, "Deployment", "StatefulSet", "DaemonSet", "Job")
    return [(f"{one['kind']} {one['metadata']['name']}", one["spec"]["template"]["spec"]) for one in found]


def containers(pod: Manifest) -> list[Manifest]:
    """All containers of a pod, those that run first too."""
    return [*pod.get("initContainers", []), *pod["containers"]]
