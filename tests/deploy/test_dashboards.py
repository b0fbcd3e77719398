"""The dashboards against Grafana's own types of them: no field it does not know, no value it does not take."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DASHBOARDS = sorted((ROOT / "deploy" / "monitoring" / "grafana").glob("*.json"))
TOOLS = ROOT / "build" / "tools" / "grafana" / "node_modules"

Change = Callable[[dict[str, Any]], object]


def first(document: dict[str, Any], kind: str) -> dict[str, Any]:
    found: dict[str, Any] = next(panel for panel in document["panels"] if panel["type"] == kind)
    return found


WRONG: dict[str, Change] = {
    "field": lambda board: board.update(colour="red"),
    "panel field": lambda board: first(board, "stat").update(colour="red"),
    "kind of panel": lambda board: first(board, "stat").update(type="speedometer"),
    "option": lambda board: first(board, "timeseries")["options"].update(colour="red"),
    "value of an option": lambda board: first(board, "stat")["options"].update(graphMode="hills"),
    "type of a value": lambda board: first(board, "timeseries")["fieldConfig"]["defaults"]["custom"].update(
        lineWidth="1"
    ),
    "variable": lambda board: board["templating"]["list"][1].update(refresh=7),
    "link": lambda board: board["links"][0].update(type="telephone"),
    "query": lambda board: first(board, "timeseries")["targets"][0].pop("expr"),
    "annotation": lambda board: board["annotations"]["list"][0].update(expr="up"),
}


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is said of each dashboard, and of one with something wrong in it, by name; all in one run."""
    compiler = TOOLS / ".bin" / "tsc"
    if not compiler.exists() or shutil.which("node") is None:
        pytest.skip("Grafana's types or node are not there: make tools")
    folder = tmp_path_factory.mktemp("dashboards")
    (folder / "node_modules").symlink_to(TOOLS)
    for name in ("shape.ts", "tsconfig.json"):
        shutil.copy(HERE / "grafana" / name, folder)
    documents = {path.stem: json.loads(path.read_text()) for path in DASHBOARDS}
    for name, change in WRONG.items():
        documents[f"wrong {name}"] = json.loads((ROOT / "deploy/monitoring/grafana/overview.json").read_text())
        change(documents[f"wrong {name}"])
    for name, document in documents.items():
        head = "import type { OurDashboard } from './shape';\nexport const dashboard: OurDashboard = "
        (folder / f"{name}.ts").write_text(f"{head}{json.dumps(document, indent=1)};\n")
    done = subprocess.run(
        [str(compiler), "--project", "."], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    found = {name: "" for name in documents}
    for line in done.stdout.splitlines():
        name = line.partition(".ts(")[0]
        assert line.startswith(" ") or name in found, line
        if name in found:
            found[name] += f"{line}\n"
    assert done.returncode != 0, "nothing was found to be wrong"
    return found


@pytest.mark.parametrize("name", [path.stem for path in DASHBOARDS])
def test_a_dashboard_is_what_grafana_says_that_it_is(complaints: dict[str, str], name: str) -> None:
    assert complaints[name] == ""


@pytest.mark.parametrize("name", WRONG)
def test_what_grafana_would_not_take_is_found(complaints: dict[str, str], name: str) -> None:
    assert "error TS" in complaints[f"wrong {name}"]
