"""Writes the Grafana dashboards beside this file, grafana/*.json: `python deploy/monitoring/dashboards.py`.

A dashboard is rows of panels; a panel is a title, queries and a unit. What is the same for all is said once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "grafana"
SOURCE = {"type": "prometheus", "uid": "${source}"}
COLUMNS = 24

SERVER = 'job=~"$job", instance=~"$instance"'
MODEL = f'{SERVER}, model=~"$model", version=~"$version"'
RATE = "[$__rate_interval]"


@dataclass(frozen=True)
class Panel:
    """What is drawn: queries with their legends, in a unit of Grafana's."""

    title: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    stacked: bool = False
    about: str = ""
    least: float | None = 0


@dataclass(frozen=True)
class Row:
    """Panels under one heading; they flow from left to right."""

    title: str
    panels: Sequence[Panel]


def quantile(share: float, name: str, labels: str, by: str = "") -> str:
    """A quantile of a histogram over the chosen interval."""
    grouped = f"{by}, le" if by else "le"
    return f"histogram_quantile({share}, sum by ({grouped}) (rate({name}_bucket{{{labels}}}{RATE})))"


def rate(name: str, labels: str, by: str = "") -> str:
    """How often a second, or how much."""
    grouped = f"sum by ({by}) " if by else "sum"
    return f"{grouped}(rate({name}{{{labels}}}{RATE}))"


def mean(name: str, labels: str) -> str:
    """The mean of what a histogram observed."""
    return f"{rate(f'{name}_sum', labels)} / {rate(f'{name}_count', labels)}"


def stat(title: str, query: str, unit: str = "short", about: str = "") -> Panel:
    """One large figure."""
    return Panel(title, [(query, "")], unit, "stat", width=4, height=4, about=about)


OVERVIEW = [
    Row(
        "Now",
        [
            stat("Servers ready", f"sum(inferd_ready{{{SERVER}}})"),
            stat("Models not ready", f'sum(inferd_model_state{{{SERVER}, state!="READY"}}) or vector(0)'),
            stat("Requests", rate("inferd_requests_total", SERVER), "reqps"),
            stat("Latency p99", quantile(0.99, "inferd_request_duration_seconds", SERVER), "s"),
            stat("Waiting", f"sum(inferd_pending_requests{{{SERVER}}})", about="Requests that wait for a batch."),
            stat(
                "Bad in the last hour",
                'inferd:requests_bad:ratio_rate1h{job=~"$job"}',
                "percentunit",
                "Of the requests that count for the objective.",
            ),
        ],
    ),
    Row(
        "Requests",
        [
            Panel("By code", [(rate("inferd_requests_total", SERVER, "code"), "{{code}}")], "reqps", stacked=True),
            Panel("By model", [(rate("inferd_requests_total", SERVER, "model"), "{{model}}")], "reqps", stacked=True),
            Panel(
                "Latency",
                [(quantile(q, "inferd_request_duration_seconds", SERVER), f"p{100 * q:.0f}") for q in (0.5, 0.9, 0.99)],
                "s",
            ),
            Panel(
                "Error budget",
                [
                    (f'inferd:requests_bad:ratio_rate{one}{{job=~"$job"}} / 0.001', one)
                    for one in ("5m", "1h", "6h", "1d", "3d")
                ],
                about="How many times faster than it may the budget goes; 1 uses it up in 30 days.",
            ),
            Panel("Refused", [(rate("inferd_rejected_requests_total", SERVER, "reason"), "{{reason}}")], "reqps"),
            Panel(
                "Refused for want of room or time",
                [(rate("inferd_shed_requests_total", SERVER, "reason"), "{{reason}}")],
                "reqps",
            ),
            Panel(
                "Failed after they were accepted",
                [(rate("inferd_failed_requests_total", SERVER, "reason"), "{{reason}}")],
                "reqps",
            ),
        ],
    ),
    Row(
        "Calls",
        [
            Panel(
                "Other than inference",
                [(rate("inferd_call_duration_seconds_count", SERVER, "carrier, method"), "{{carrier}} {{method}}")],
                "reqps",
                about="Over HTTP also inference, whose JSON is part of it.",
            ),
            Panel(
                "p99, by method",
                [(quantile(0.99, "inferd_call_duration_seconds", SERVER, "carrier, method"), "{{carrier}} {{method}}")],
                "s",
            ),
            Panel(
                "Turned away",
                [(rate("inferd_auth_refusals_total", SERVER, "reason"), "{{reason}}")],
                "reqps",
                about="For who calls; the log says who that is.",
            ),
        ],
    ),
    Row(
        "Models",
        [
            Panel("Waiting", [(f"sum by (model) (inferd_pending_requests{{{SERVER}}})", "{{model}}")]),
            Panel("Rows of a batch", [('inferd:batch_rows:mean5m{job=~"$job"}', "{{model}}")]),
            Panel(
                "Busy",
                [('inferd:busy:max5m{job=~"$job"}', "{{model}}")],
                "percentunit",
                about="Share of the time in batches, of the busiest server; more than 100% with several instances.",
            ),
            Panel(
                "States",
                [(f"inferd_model_state{{{SERVER}}} == 1", "{{model}} {{version}} {{state}}")],
                kind="table",
                width=12,
            ),
            Panel(
                "Ready",
                [(f"sum by (model, version) (inferd_model_ready{{{SERVER}}})", "{{model}} {{version}}")],
                width=12,
                about="On how many servers.",
            ),
        ],
    ),
]

PHASES = [
    ("inferd_queue_duration_seconds", "waiting"),
    ("inferd_compute_input_duration_seconds", "gathering"),
    ("inferd_compute_infer_duration_seconds", "running"),
    ("inferd_compute_output_duration_seconds", "encoding"),
]
OF_MODEL = [
    Row(
        "Now",
        [
            stat("Servers ready", f"sum(inferd_model_ready{{{MODEL}}})"),
            stat("Requests", rate("inferd_requests_total", MODEL), "reqps"),
            stat("Latency p99", quantile(0.99, "inferd_request_duration_seconds", MODEL), "s"),
            stat("In flight", f"sum(inferd_in_flight_requests{{{MODEL}}})"),
            stat("Rows of a batch", f"{rate('inferd_rows_total', MODEL)} / {rate('inferd_batches_total', MODEL)}"),
            stat("Last load", f"max(inferd_model_load_duration_seconds{{{MODEL}}})", "s"),
        ],
    ),
    Row(
        "Where the time goes",
        [
            Panel(
                "Mean, by phase", [(mean(name, MODEL), legend) for name, legend in PHASES], "s", stacked=True, width=12
            ),
            Panel("p99, by phase", [(quantile(0.99, name, MODEL), legend) for name, legend in PHASES], "s", width=12),
            Panel(
                "Latency",
                [(f"sum by (le) (increase(inferd_request_duration_seconds_bucket{{{MODEL}}}{RATE}))", "{{le}}")],
                "s",
                "heatmap",
                width=12,
            ),
            Panel(
                "p99, by server",
                [(quantile(0.99, "inferd_request_duration_seconds", MODEL, "instance"), "{{instance}}")],
                "s",
                width=12,
            ),
        ],
    ),
    Row(
        "Batches",
        [
            Panel(
                "Rows",
                [(f"sum by (le) (increase(inferd_batch_rows_bucket{{{MODEL}}}{RATE}))", "{{le}}")],
                kind="heatmap",
            ),
            Panel(
                "Why they left",
                [(rate("inferd_batches_total", MODEL, "close_reason"), "{{close_reason}}")],
                "ops",
                stacked=True,
            ),
            Panel(
                "Busy",
                [(rate("inferd_engine_busy_seconds_total", MODEL, "instance"), "{{instance}}")],
                "percentunit",
                about="100% is one instance of the model that never rests.",
            ),
            Panel(
                "Padding",
                [
                    (
                        f"{rate('inferd_padded_rows_total', MODEL)}"
                        f" / ({rate('inferd_rows_total', MODEL)} + {rate('inferd_padded_rows_total', MODEL)})",
                        "rows",
                    )
                ],
                "percentunit",
                about="Of the rows that a GPU computes, those that only fill a batch up.",
            ),
            Panel("Waiting", [(f"sum by (instance) (inferd_pending_requests{{{MODEL}}})", "{{instance}}")]),
            Panel("Waiting, in rows", [(f"sum by (instance) (inferd_queue_rows{{{MODEL}}})", "{{instance}}")]),
            Panel(
                "Waiting, in bytes", [(f"sum by (instance) (inferd_queue_bytes{{{MODEL}}})", "{{instance}}")], "bytes"
            ),
        ],
    ),
    Row(
        "Ends",
        [
            Panel("By code", [(rate("inferd_requests_total", MODEL, "code"), "{{code}}")], "reqps", stacked=True),
            Panel("Refused", [(rate("inferd_rejected_requests_total", MODEL, "reason"), "{{reason}}")], "reqps"),
            Panel("Failed", [(rate("inferd_failed_requests_total", MODEL, "reason"), "{{reason}}")], "reqps"),
            Panel(
                "Run for nobody",
                [(f"{rate('inferd_wasted_rows_total', MODEL)} / {rate('inferd_rows_total', MODEL)}", "rows")],
                "percentunit",
                about="Rows whose callers had gone when they were run.",
            ),
            Panel("Expired before they ran", [(rate("inferd_expired_before_run_total", MODEL), "requests")], "reqps"),
            Panel("Accepted", [(rate("inferd_accepted_requests_total", MODEL, "instance"), "{{instance}}")], "reqps"),
        ],
    ),
]

HARDWARE = [
    Row(
        "Processes",
        [
            Panel("Processors", [(rate("process_cpu_seconds_total", SERVER, "instance"), "{{instance}}")]),
            Panel("Memory", [(f"process_resident_memory_bytes{{{SERVER}}}", "{{instance}}")], "bytes"),
            Panel(
                "Open files",
                [(f"process_open_fds{{{SERVER}}} / process_max_fds{{{SERVER}}}", "{{instance}}")],
                "percentunit",
            ),
            Panel(
                "Event loop, p99 late",
                [(quantile(0.99, "inferd_event_loop_lag_seconds", SERVER, "instance"), "{{instance}}")],
                "s",
            ),
            Panel(
                "Processor time of a request",
                [
                    (
                        f"{rate('process_cpu_seconds_total', SERVER, 'instance')}"
                        f" / {rate('inferd_requests_total', SERVER, 'instance')}",
                        "{{instance}}",
                    )
                ],
                "s",
            ),
            Panel(
                "Garbage collections",
                [(rate("python_gc_collections_total", SERVER, "instance"), "{{instance}}")],
                "ops",
            ),
        ],
    ),
    Row(
        "GPUs, from NVIDIA's exporter",
        [
            Panel("Busy", [("DCGM_FI_DEV_GPU_UTIL / 100", "{{Hostname}} {{gpu}}")], "percentunit"),
            Panel("Engine active", [("DCGM_FI_PROF_GR_ENGINE_ACTIVE", "{{Hostname}} {{gpu}}")], "percentunit"),
            Panel("Tensor cores active", [("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "{{Hostname}} {{gpu}}")], "percentunit"),
            Panel("Memory traffic", [("DCGM_FI_PROF_DRAM_ACTIVE", "{{Hostname}} {{gpu}}")], "percentunit"),
            Panel("Memory used", [("DCGM_FI_DEV_FB_USED", "{{Hostname}} {{gpu}}")], "decmbytes"),
            Panel(
                "XID", [("DCGM_FI_DEV_XID_ERRORS", "{{Hostname}} {{gpu}}")], about="The last error's number; 0 is none."
            ),
        ],
    ),
]


@dataclass(frozen=True)
class Dashboard:
    """A page of Grafana."""

    uid: str
    title: str
    variables: Sequence[tuple[str, str]]
    rows: Sequence[Row]

    def document(self) -> dict[str, Any]:
        """What Grafana imports."""
        return {
            "uid": self.uid,
            "title": self.title,
            "tags": ["inferd"],
            "schemaVersion": 39,
            "editable": True,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-3h", "to": "now"},
            "links": [
                {"type": "dashboards", "title": "inferd", "tags": ["inferd"], "keepTime": True, "includeVars": True}
            ],
            "annotations": {"list": [_restarts()]},
            "templating": {"list": [_source(), *(_variable(name, query) for name, query in self.variables)]},
            "panels": [{"id": index, **panel} for index, panel in enumerate(_laid_out(self.rows), 1)],
        }


SERVERS = [
    ("job", "label_values(inferd_ready, job)"),
    ("instance", 'label_values(inferd_ready{job=~"$job"}, instance)'),
]
MODELS = [
    ("model", f"label_values(inferd_model_ready{{{SERVER}}}, model)"),
    ("version", f'label_values(inferd_model_ready{{{SERVER}, model=~"$model"}}, version)'),
]
DASHBOARDS = [
    Dashboard("inferd-overview", "inferd: overview", SERVERS, OVERVIEW),
    Dashboard("inferd-model", "inferd: model", [*SERVERS, *MODELS], OF_MODEL),
    Dashboard("inferd-hardware", "inferd: hardware", SERVERS, HARDWARE),
]


def _laid_out(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Panels with their places in a grid of 24 columns."""
    y = 0
    for row in rows:
        yield {"type": "row", "title": row.title, "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": y}, "panels": []}
        x, y, tallest = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            yield _panel(panel) | {"gridPos": {"h": panel.height, "w": panel.width, "x": x, "y": y}}
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest


def _panel(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit}
    if panel.least is not None:
        defaults["min"] = panel.least
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "lineWidth": 1,
            "fillOpacity": 25 if panel.stacked else 5,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none"},
        }
    made: dict[str, Any] = {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(panel.kind),
        "targets": [_target(panel.kind, query, legend, index) for index, (query, legend) in enumerate(panel.queries)],
    }
    if panel.kind == "table":
        hidden = dict.fromkeys(("Time", "Value", "__name__", "job"), True)
        made["transformations"] = [{"id": "organize", "options": {"excludeByName": hidden}}]
    return made


def _options(kind: str) -> dict[str, Any]:
    if kind == "timeseries":
        return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    if kind == "stat":
        return {"colorMode": "none", "graphMode": "area", "reduceOptions": {"calcs": ["lastNotNull"]}}
    if kind == "heatmap":
        return {"calculate": False, "cellGap": 1, "yAxis": {"axisPlacement": "left"}, "color": {"scheme": "Blues"}}
    return {}


def _target(kind: str, query: str, legend: str, index: int) -> dict[str, Any]:
    made: dict[str, Any] = {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": query, "legendFormat": legend}
    if kind == "table":
        return made | {"format": "table", "instant": True}
    if kind == "heatmap":
        return made | {"format": "heatmap"}
    return made | {"exemplar": "_bucket{" in query}


def _source() -> dict[str, Any]:
    return {"type": "datasource", "name": "source", "label": "Prometheus", "query": "prometheus"}


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "type": "query",
        "name": name,
        "label": name,
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "current": {"text": "All", "value": "$__all"},
    }


def _restarts() -> dict[str, Any]:
    return {
        "name": "Starts",
        "datasource": SOURCE,
        "enable": True,
        "iconColor": "orange",
        "target": {"refId": "Starts", "expr": f"changes(process_start_time_seconds{{{SERVER}}}[2m]) > 0"},
        "titleFormat": "{{instance}} was started",
    }


def write(folder: Path) -> None:
    """One file for each dashboard."""
    folder.mkdir(exist_ok=True)
    for dashboard in DASHBOARDS:
        text = json.dumps(dashboard.document(), indent=1)
        (folder / f"{dashboard.uid.removeprefix('inferd-')}.json").write_text(f"{text}\n")


if __name__ == "__main__":
    write(FOLDER)
