"""Prometheus' own tools on the rules: they are right, and each alert fires and stays silent when it should."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from .alert_cases import CASES, MORE, Case

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
# What is recorded first: the alerts read it.
RULES = sorted((MONITORING / "rules").glob("*.yml"), key=lambda path: (path.stem != "recording", path.stem))
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool; `make tools` installs it")
needs_amtool = pytest.mark.skipif(shutil.which("amtool") is None, reason="no amtool; `make tools` installs it")


def groups() -> list[dict[str, Any]]:
    return [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for group in groups() for rule in group["rules"] if "alert" in rule}


def tool(*command: str | Path) -> str:
    """What it said; it must have succeeded."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_alert_has_its_cases() -> None:
    assert set(CASES) == set(alerts())


@pytest.mark.parametrize("name", sorted(alerts()))
def test_an_alert_says_how_urgent_it_is_and_what_to_do(name: str) -> None:
    rule = alerts()[name]
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["summary"]
    page = ROOT / rule["annotations"]["runbook"]
    text = page.read_text()
    assert all(f"**{part}**" in text or f"**{part}.**" in text for part in ("Means", "Look", "Do"))
    assert f"]({page.name})" in (page.parent / "README.md").read_text()


@needs_promtool
def test_rules_and_configuration_are_right() -> None:
    tool("promtool", "check", "rules", "--lint=all", "--lint-fatal", *RULES)
    tool("promtool", "check", "config", MONITORING / "prometheus.yml")


def run_case(folder: Path, alert: str, case: Case, *, fires: bool) -> None:
    path = folder / "case.yml"
    order = [group["name"] for group in groups()]
    path.write_text(yaml.safe_dump(case.document(alert, [str(rules) for rules in RULES], order, fires=fires)))
    tool("promtool", "test", "rules", path)


@needs_promtool
@pytest.mark.parametrize("alert", CASES)
@pytest.mark.parametrize("fires", [True, False], ids=["fires", "silent"])
def test_an_alert(tmp_path: Path, alert: str, fires: bool) -> None:
    run_case(tmp_path, alert, CASES[alert][0 if fires else 1], fires=fires)


@needs_promtool
@pytest.mark.parametrize("what", MORE)
def test_more_of_an_alert(tmp_path: Path, what: str) -> None:
    alert, fires, case = MORE[what]
    run_case(tmp_path, alert, case, fires=fires)


@needs_amtool
@pytest.mark.parametrize("name", sorted(alerts()))
def test_an_alert_reaches_whom_its_severity_says(name: str) -> None:
    severity = alerts()[name]["labels"]["severity"]
    told = tool(
        "amtool", "config", "routes", "test", f"--config.file={MONITORING / 'alertmanager.yml'}",
        f"alertname={name}", f"severity={severity}", "job=inferd",
    )  # fmt: skip
    assert told.split() == [{"page": "pager", "ticket": "tickets"}[severity]]


@needs_amtool
def test_alertmanagers_configuration_is_right() -> None:
    tool("amtool", "check-config", MONITORING / "alertmanager.yml")


def test_what_is_inhibited_exists() -> None:
    known = set(alerts())
    told = yaml.safe_load((MONITORING / "alertmanager.yml").read_text())
    for rule in told["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            label, value = matcher.split("=", 1)
            if label.strip() == "alertname":
                for name in value.lstrip("~ ").strip('"').split("|"):
                    assert any(one.startswith(name.removesuffix(".*")) for one in known), name
