"""The metrics as a scraper reads them: names, types, labels, buckets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from inferd.errors import Internal
from inferd.models import State
from inferd.telemetry.docs import page
from inferd.telemetry.metrics import serving_registry
from inferd.telemetry.sample import BuildInfo, HistogramSample, ModelFacts, ModelSample, ServerSample
from inferd.telemetry.series import OF_MODELS, STATES
from inferd.telemetry.server_series import OF_SERVER

BUILD = BuildInfo(version="1.2.3", python="3.11.7", onnxruntime="1.32.0")
REQUEST = HistogramSample(bounds=(0.001, 0.25, 1.0), counts=(5, 3, 0, 2), total=7.5)
SAMPLE = ModelSample(
    model="resnet",
    version="3",
    ready=True,
    state="READY",
    facts=ModelFacts(batched=True, max_batch_size=64, instances=2, threads=4),
    load_seconds=1.5,
    requests_by_code={0: 40, 3: 2, 8: 1, 4: 5},
    failed_by_code={3: 1, 4: 5},
    accepted=49,
    in_flight=3,
    expired=4,
    wasted_rows=6,
    rows=80,
    batches_by_reason={"ready": 7, "full": 3},
    busy_seconds=2.25,
    pending=2,
    queue_rows=4,
    queue_bytes=2408,
    request_by_code={0: REQUEST},
    batch_rows=HistogramSample(bounds=(1.0, 2.0, 4.0), counts=(1, 2, 7, 0), total=33.0),
)
OF_RESNET = {"model": "resnet", "version": "3"}
SERVER = ServerSample(ready=True, loads={("resnet", "ok"): 2, ("resnet", "failed"): 1})
PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"

Read = Callable[[CollectorRegistry], Iterable[Metric]]


def read_text(registry: CollectorRegistry) -> Iterable[Metric]:
    return parse_text(generate_latest(registry).decode())


def read_openmetrics(registry: CollectorRegistry) -> Iterable[Metric]:
    text: str = generate_openmetrics(registry).decode()  # type: ignore[no-untyped-call]
    found: Iterable[Metric] = parse_openmetrics(text)  # type: ignore[no-untyped-call]
    return found


both_formats = pytest.mark.parametrize("read", [read_text, read_openmetrics])


def registry_of(*samples: ModelSample) -> CollectorRegistry:
    return serving_registry(lambda: samples, lambda: SERVER, BUILD)


def values(metrics: Iterable[Metric], name: str) -> dict[tuple[tuple[str, str], ...], float]:
    return {
        tuple(sorted(sample.labels.items())): sample.value
        for metric in metrics
        for sample in metric.samples
        if sample.name == name
    }


def value(metrics: Iterable[Metric], name: str, **labels: str) -> float:
    return values(metrics, name)[tuple(sorted(labels.items()))]


@both_formats
def test_requests_are_counted_by_the_name_of_their_code(read: Read) -> None:
    metrics = list(read(registry_of(SAMPLE)))
    assert value(metrics, "inferd_requests_total", **OF_RESNET, code="OK") == 40
    assert value(metrics, "inferd_requests_total", **OF_RESNET, code="INVALID_ARGUMENT") == 2
    assert value(metrics, "inferd_requests_total", **OF_RESNET, code="RESOURCE_EXHAUSTED") == 1


def test_codes_grpc_does_not_know_are_counted_as_unknown() -> None:
    metrics = read_text(registry_of(ModelSample(model="m", version="1", requests_by_code={2: 1, 99: 2, -1: 4})))
    assert values(metrics, "inferd_requests_total") == {(("code", "UNKNOWN"), ("model", "m"), ("version", "1")): 7}


@both_formats
def test_buckets_are_cumulative_and_the_infinite_one_is_the_count(read: Read) -> None:
    metrics = list(read(registry_of(SAMPLE)))
    buckets = values(metrics, "inferd_request_duration_seconds_bucket")
    by_bound = {float(dict(labels)["le"]): count for labels, count in buckets.items()}
    assert by_bound == {0.001: 5, 0.25: 8, 1.0: 8, float("inf"): 10}
    assert value(metrics, "inferd_request_duration_seconds_count", **OF_RESNET, code="OK") == 10
    assert value(metrics, "inferd_request_duration_seconds_sum", **OF_RESNET, code="OK") == 7.5


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=24))
def test_any_counts_become_buckets_that_never_fall_and_end_at_their_sum(counts: list[int]) -> None:
    bounds = tuple(1e-5 * 2**power for power in range(len(counts) - 1))
    histogram = HistogramSample(bounds=bounds, counts=tuple(counts), total=1.0)
    metrics = list(read_openmetrics(registry_of(ModelSample(model="m", version="1", compute=histogram))))
    found = list(values(metrics, "inferd_compute_duration_seconds_bucket").values())
    assert found == sorted(found)
    assert found[-1] == sum(counts)


@both_formats
def test_every_metric_has_the_type_it_is_documented_with(read: Read) -> None:
    types = {metric.name: metric.type for metric in read(registry_of(SAMPLE))}
    found = {name: kind for name, kind in types.items() if name.startswith("inferd_")}
    for info in ("inferd_build", "inferd_model"):
        assert (found.pop(info, None) or found.pop(f"{info}_info", None)) in ("info", "gauge")
    assert found == {
        "inferd_requests": "counter",
        "inferd_accepted_requests": "counter",
        "inferd_rejected_requests": "counter",
        "inferd_shed_requests": "counter",
        "inferd_stopped_batches": "counter",
        "inferd_failed_requests": "counter",
        "inferd_expired_before_run": "counter",
        "inferd_in_flight_requests": "gauge",
        "inferd_pending_requests": "gauge",
        "inferd_queue_rows": "gauge",
        "inferd_queue_bytes": "gauge",
        "inferd_request_duration_seconds": "histogram",
        "inferd_queue_duration_seconds": "histogram",
        "inferd_compute_duration_seconds": "histogram",
        "inferd_compute_input_duration_seconds": "histogram",
        "inferd_compute_infer_duration_seconds": "histogram",
        "inferd_compute_output_duration_seconds": "histogram",
        "inferd_batch_rows": "histogram",
        "inferd_batches": "counter",
        "inferd_rows": "counter",
        "inferd_padded_rows": "counter",
        "inferd_wasted_rows": "counter",
        "inferd_engine_busy_seconds": "counter",
        "inferd_model_ready": "gauge",
        "inferd_model_state": "gauge",
        "inferd_model_fell_back": "gauge",
        "inferd_model_load_duration_seconds": "gauge",
        "inferd_ready": "gauge",
        "inferd_draining": "gauge",
        "inferd_event_loop_lag_seconds": "histogram",
        "inferd_model_loads": "counter",
        "inferd_call_duration_seconds": "histogram",
        "inferd_auth_refusals": "counter",
        "inferd_traces": "counter",
        "inferd_access_lines": "counter",
    }


@both_formats
def test_counters_and_gauges_carry_the_samples_numbers(read: Read) -> None:
    metrics = list(read(registry_of(SAMPLE)))
    expected = {
        "accepted_requests_total": 49,
        "in_flight_requests": 3,
        "expired_before_run_total": 4,
        "wasted_rows_total": 6,
        "rows_total": 80,
        "engine_busy_seconds_total": 2.25,
        "pending_requests": 2,
        "queue_rows": 4,
        "queue_bytes": 2408,
        "model_ready": 1,
        "model_load_duration_seconds": 1.5,
    }
    assert {name: value(metrics, f"inferd_{name}", **OF_RESNET) for name in expected} == expected
    for reason, count in {"ready": 7, "full": 3}.items():
        assert value(metrics, "inferd_batches_total", **OF_RESNET, close_reason=reason) == count


@both_formats
def test_a_request_is_refused_before_the_queue_or_fails_after_it_never_both(read: Read) -> None:
    metrics = list(read(registry_of(SAMPLE)))
    rejected = {reason: value(metrics, "inferd_rejected_requests_total", **OF_RESNET, reason=reason)
                for reason in ("invalid", "overloaded", "not_ready")}  # fmt: skip
    failed = {reason: value(metrics, "inferd_failed_requests_total", **OF_RESNET, reason=reason)
              for reason in ("input", "deadline", "run", "cancelled")}  # fmt: skip
    assert rejected == {"invalid": 1, "overloaded": 1, "not_ready": 0}
    assert failed == {"input": 1, "deadline": 5, "run": 0, "cancelled": 0}


@both_formats
def test_the_state_of_a_model_is_the_one_that_reads_1(read: Read) -> None:
    metrics = list(read(registry_of(SAMPLE)))
    states = {state: value(metrics, "inferd_model_state", **OF_RESNET, state=state) for state in STATES}
    assert states == {"LOADING": 0, "READY": 1, "DRAINING": 0, "FAILED": 0}
    assert set(STATES) == {state.name for state in State} - {"GONE"}


@both_formats
def test_what_a_model_is_is_told_by_labels(read: Read) -> None:
    facts = {"batched": "true", "max_batch_size": "64", "instances": "2", "threads": "4"}
    assert value(read(registry_of(SAMPLE)), "inferd_model_info", **OF_RESNET, **facts) == 1


@both_formats
def test_the_server_itself_is_on_the_page(read: Read) -> None:
    metrics = list(read(registry_of()))
    assert (value(metrics, "inferd_ready"), value(metrics, "inferd_draining")) == (1, 0)
    loads = {
        result: value(metrics, "inferd_model_loads_total", model="resnet", result=result) for result in ("ok", "failed")
    }
    assert loads == {"ok": 2, "failed": 1}


def test_the_page_about_metrics_is_what_the_code_writes() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: make docs"


def test_a_sample_adds_up_its_durations_of_all_codes() -> None:
    other = HistogramSample(REQUEST.bounds, (0, 0, 1, 0), 0.5)
    found = ModelSample(model="m", request_by_code={0: REQUEST, 3: other}).request
    assert (found.counts, found.total) == ((5, 3, 1, 2), 8.0)


def test_a_model_that_is_not_ready_reads_zero() -> None:
    metrics = read_text(registry_of(ModelSample(model="m", version="1")))
    assert value(metrics, "inferd_model_ready", model="m", version="1") == 0


def test_versions_of_one_model_are_series_of_their_own() -> None:
    samples = (ModelSample(model="m", version=version, rows=int(version)) for version in "12")
    found = values(read_text(registry_of(*samples)), "inferd_rows_total")
    assert sorted(found.values()) == [1, 2]


def test_requests_for_unknown_models_are_counted_and_make_no_other_series() -> None:
    unknown = ModelSample(model="", requests_by_code={5: 3})
    metrics = list(read_text(registry_of(unknown)))
    assert value(metrics, "inferd_requests_total", model="", version="", code="NOT_FOUND") == 3
    others = [sample.name for metric in metrics for sample in metric.samples if sample.name.startswith("inferd_")]
    of_server = {
        name for name in others if name.startswith(("inferd_model_loads", "inferd_event_loop", "inferd_ready"))
    }
    assert set(others) - of_server == {
        "inferd_build_info", "inferd_draining", "inferd_rejected_requests_total", "inferd_requests_total",
    }  # fmt: skip
    assert value(metrics, "inferd_rejected_requests_total", model="", version="", reason="unknown_model") == 3


@both_formats
def test_the_build_is_told_by_labels(read: Read) -> None:
    metrics = read(registry_of())
    versions = {"version": "1.2.3", "python": "3.11.7", "onnxruntime": "1.32.0"}
    assert value(metrics, "inferd_build_info", **versions) == 1


def test_durations_and_bytes_say_their_unit() -> None:
    units = {metric.name: metric.unit for metric in read_openmetrics(registry_of(SAMPLE))}
    assert units["inferd_request_duration_seconds"] == "seconds"


@both_formats
def test_names_of_models_are_escaped(read: Read) -> None:
    odd = 'a"b\\c\nd'
    metrics = read(registry_of(ModelSample(model=odd, version="1", rows=9)))
    assert value(metrics, "inferd_rows_total", model=odd, version="1") == 9


def test_the_process_and_python_are_described_too() -> None:
    names = {metric.name for metric in read_text(registry_of())}
    assert {
        "process_resident_memory_bytes",
        "process_open_fds",
        "python_info",
        "python_gc_collections",
    } <= names


def test_sources_are_asked_once_per_scrape_and_never_before() -> None:
    asked: list[None] = []

    def sources() -> Iterable[ModelSample]:
        asked.append(None)
        return [SAMPLE]

    registry = serving_registry(sources, lambda: SERVER, BUILD)
    assert len(asked) == 0
    generate_latest(registry)
    assert len(asked) == 1
    generate_latest(registry)
    assert len(asked) == 2


def test_two_servers_in_one_process_do_not_meet() -> None:
    first, second = registry_of(SAMPLE), registry_of()
    assert values(read_text(first), "inferd_rows_total")
    assert not values(read_text(second), "inferd_rows_total")


@pytest.mark.parametrize("counts", [(), (1,), (1, 2, 3)])
def test_a_histogram_whose_counts_do_not_fit_its_bounds_is_refused(counts: tuple[int, ...]) -> None:
    with pytest.raises(Internal, match="1 bounds but"):
        HistogramSample(bounds=(1.0,), counts=counts, total=0.0)


@pytest.mark.parametrize("bounds", [(1.0, 1.0), (2.0, 1.0)])
def test_a_histogram_whose_bounds_do_not_rise_is_refused(bounds: tuple[float, ...]) -> None:
    with pytest.raises(Internal, match="do not rise"):
        HistogramSample(bounds=bounds, counts=(0, 0, 0), total=0.0)


def test_the_page_about_seeing_inside_names_series_that_there_are() -> None:
    text = (PAGE.parent / "observability.md").read_text(encoding="utf-8")
    named = {
        name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
        for name in re.findall(r"\binferd_[a-z_]+\b", text)
    }
    there = {series.name for series in (*OF_MODELS, *OF_SERVER)}
    assert named
    assert named - there == set()


def test_the_queries_on_that_page_can_be_parsed() -> None:
    promql = pytest.importorskip("promql_parser", reason="promql-parser is not installed")
    text = (PAGE.parent / "observability.md").read_text(encoding="utf-8")
    lines = text.split("```promql\n")[1].split("```")[0].splitlines()
    queries = [line for line in lines if line and not line.startswith("#")]
    assert len(queries) >= 10
    for query in queries:
        promql.parse(query)
