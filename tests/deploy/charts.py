"""What a Helm chart must not do, from its files alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

VALUE = re.compile(r"\$?\.Values((?:\.\w+)+)")


def faults(chart: Path) -> Iterator[str]:
    """Complaints about one chart."""
    for one in yaml.safe_load((chart / "Chart.yaml").read_text()).get("dependencies", ()):
        if not re.fullmatch(r"\d+\.\d+\.\d+", one["version"]):
            yield f"its {one['name']} is whatever fits {one['version']} today"
        if "condition" not in one:
            yield f"no value turns its {one['name']} off"
        if "bitnami" in one["repository"]:
            yield f"the images of its {one['name']} have left the catalogue"
    values = yaml.safe_load((chart / "values.yaml").read_text())
    templates = "\n".join(path.read_text() for path in sorted((chart / "templates").iterdir()))
    used = {tuple(found.strip(".").split(".")) for found in VALUE.findall(templates)}
    for path in sorted(used):
        if not _has(values, path):
            yield f"templates read {'.'.join(path)}, which no value is"
    for path in _leaves(values):
        if not any(path[: len(one)] == one for one in used):
            yield f"no template reads {'.'.join(path)}"
    if re.search(r"\$\w+ \| upper", templates):
        yield "upper makes one word of the names of settings"
    blocks = re.findall(r"securityContext:\s*\{\{-? toYaml (\S+)", templates)
    if len(blocks) != len(set(blocks)):
        yield "pods and containers are given the same securityContext"
    if not (chart / "values.schema.json").exists():
        yield "a value that is misspelt is not refused"


def _has(values: Any, path: tuple[str, ...]) -> bool:
    """Whether the values have it; what a value that is empty holds is the user's."""
    for name in path:
        if not isinstance(values, dict) or name not in values:
            return values in ({}, [])
        values = values[name]
    return True


def _leaves(values: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(values, dict) and values:
        for name, value in values.items():
            yield from _leaves(value, (*above, name))
    else:
        yield above
