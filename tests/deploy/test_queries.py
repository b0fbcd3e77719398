"""Every query of dashboards and rules can be parsed, and names only series that somebody exports."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from inferd.telemetry.metrics import serving_registry
from inferd.telemetry.sample import BuildInfo, ServerSample
from inferd.telemetry.series import OF_MODELS
from inferd.telemetry.server_series import OF_SERVER

promql = pytest.importorskip("promql_parser", reason="promql-parser is not installed")

MONITORING = Path(__file__).resolve().parents[2] / "deploy" / "monitoring"
DASHBOARDS = sorted((MONITORING / "grafana").glob("*.json"))
RULES = sorted((MONITORING / "rules").glob("*.yml"))
SUFFIXES = {
    "counter": ("_total",), "gauge": ("",), "info": ("_info",), "unknown": ("",),
    "histogram": ("_bucket", "_sum", "_count"), "summary": ("", "_sum", "_count"),
}  # fmt: skip
# Prometheus makes it of every scrape; NVIDIA's exporter has these by default.
OF_OTHERS = {
    "up", "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_XID_ERRORS", "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "DCGM_FI_PROF_DRAM_ACTIVE",
}  # fmt: skip
BY_SCRAPING = {"job", "instance", "namespace", "pod"}


def rules() -> list[dict[str, Any]]:
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in DASHBOARDS:
        yield path.stem, json.loads(path.read_text())


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, document in documents():
        for panel in document["panels"]:
            yield f"{name}: {panel['title']}", panel


def queries() -> Iterator[tuple[str, str]]:
    """Where each is, and it."""
    for rule in rules():
        yield rule.get("alert") or rule["record"], rule["expr"]
    yield from scaling()
    yield from told()
    for where, panel in panels():
        for target in panel.get("targets", ()):
            yield f"{where} {target['refId']}", target["expr"]
    for name, document in documents():
        for one in document["annotations"]["list"]:
            yield f"{name}: {one['name']}", one["target"]["expr"]
        for variable in document["templating"]["list"]:
            query = variable["query"]
            text = query if isinstance(query, str) else query["query"]
            asked = re.fullmatch(r"label_values\((.*), \w+\)", text)
            if asked:
                yield f"{name}: ${variable['name']}", asked[1]


def scaling() -> Iterator[tuple[str, str]]:
    """What replicas are scaled by: KEDA's queries, the adapter's, and the names of the autoscaler's metrics."""
    for folder in ("base", "overlays", "components"):
        for path in sorted((MONITORING.parent / folder).rglob("*.yaml")):
            for document in yaml.safe_load_all(path.read_text()):
                for index, query in enumerate(named(document)):
                    yield f"{folder} {path.parent.name} {path.stem} {index}", query


def told() -> Iterator[tuple[str, str]]:
    """Those that the docs give, one to a line."""
    for path in sorted((MONITORING.parents[1] / "docs").rglob("*.md")):
        lines = "\n".join(re.findall(r"```promql\n(.*?)```", path.read_text(), re.DOTALL)).splitlines()
        for index, line in enumerate(line for line in lines if line and not line.startswith("#")):
            yield f"{path.stem} {index}", line


def named(node: Any) -> Iterator[str]:
    """The queries anywhere in a document of YAML."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("query", "seriesQuery") and isinstance(value, str):
                yield value
            elif key == "metric" and isinstance(value, dict):
                yield value["name"]
            else:
                yield from named(value)
    elif isinstance(node, list):
        for value in node:
            yield from named(value)


def parsed(query: str) -> Any:
    """The syntax tree, with Grafana's variables filled in as it does."""
    return promql.parse(query.replace("$__rate_interval", "5m").replace("$__range", "1h"))


def selectors(tree: Any) -> Iterator[Any]:
    if isinstance(tree, promql.VectorSelector):
        yield tree
    for name in ("lhs", "rhs", "expr", "args", "vector_selector"):
        below = getattr(tree, name, None)
        for one in below if isinstance(below, list) else [below]:
            if one is not None:
                yield from selectors(one)


@pytest.fixture(scope="module")
def exported() -> set[str]:
    """The names of all series of the server's own registry."""
    registry = serving_registry(lambda: (), ServerSample, BuildInfo("", "", ""))
    return {f"{family.name}{suffix}" for family in registry.collect() for suffix in SUFFIXES[family.type]}


def labels() -> dict[str, set[str]]:
    """What inferd's own series can be told apart by."""
    own: dict[str, set[str]] = {}
    for series in (*OF_MODELS, *OF_SERVER):
        for suffix in ("_bucket", "_sum", "_count") if series.kind == "histogram" else ("",):
            own[series.name + suffix] = {*series.labels, *BY_SCRAPING, *(("le",) if suffix == "_bucket" else ())}
    return own


WHERE = [pytest.param(query, id=where) for where, query in queries()]


@pytest.mark.parametrize("query", WHERE)
def test_a_query_names_only_what_is_exported(query: str, exported: set[str]) -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    named = {one.name for one in selectors(parsed(query))}
    assert named
    assert named <= exported | recorded | OF_OTHERS


@pytest.mark.parametrize("query", WHERE)
def test_a_query_selects_by_labels_that_there_are(query: str) -> None:
    own = labels()
    for one in selectors(parsed(query)):
        if one.name in own:
            assert {matcher.name for matcher in one.matchers.matchers} <= own[one.name], one.name


def test_a_query_of_something_else_would_be_noticed(exported: set[str]) -> None:
    named = {
        one.name for one in selectors(parsed("sum(rate(inferd_request_total[5m])) / on () group_left inferd_ready"))
    }
    assert named - exported == {"inferd_request_total"}


def test_dashboards_are_what_their_generator_writes(tmp_path: Path) -> None:
    runpy.run_path(str(MONITORING / "dashboards.py"))["write"](tmp_path)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert {path.name: path.read_text() for path in DASHBOARDS} == written


@pytest.mark.parametrize(("name", "document"), list(documents()))
def test_panels_of_a_dashboard_lie_beside_each_other(name: str, document: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in document["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + across, place["y"] + down) for across in range(place["w"]) for down in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in document["panels"]}) == len(document["panels"])


def test_dashboards_know_each_other_and_their_variables() -> None:
    for _, document in documents():
        assert document["links"][0]["tags"] == document["tags"] == ["inferd"]
        known = {variable["name"] for variable in document["templating"]["list"]} | {"__rate_interval"}
        used = set(re.findall(r"\$\{?(\w+)\}?", json.dumps(document["panels"])))
        assert used <= known


@pytest.mark.parametrize(
    "page", sorted((MONITORING.parents[1] / "docs" / "runbooks").glob("*.md")), ids=lambda path: path.stem
)
def test_runbooks_name_only_what_is_exported(page: Path, exported: set[str]) -> None:
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    named = set(re.findall(r"\b(?:inferd|process)_\w+|\binferd:[a-z]\w*:\w+", page.read_text()))
    assert named <= exported | families | recorded
