"""Write docs/metrics.md out of the declarations: ``python -m inferd.telemetry.docs > docs/metrics.md``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from inferd.telemetry.gpus import OF_GPUS
from inferd.telemetry.series import FAILED, OF_MODELS, REJECTED, Series
from inferd.telemetry.server_series import OF_SERVER

_HEAD: Final = """\
# Metrics

This page is written by `make docs` from the code; change it there. How to read them:
[Seeing inside](observability.md).

`/metrics` is on port 9090 (`--metrics-port`), in Prometheus's text format or in OpenMetrics, as the scraper asks. A
histogram has the series `_bucket`, `_sum` and `_count`. Counts begin when a model version is loaded and go on when it
is loaded again in its place. Label values are names of the repository and the words on this page, never what callers
choose.
"""

_GPUS: Final = """\

## GPUs

Where models run on GPUs and nvidia-ml-py is installed, of every GPU that the driver sees. `gpu` is its UUID. Where
Triton's names are asked for they are there too, with the label `gpu_uuid`.

| name | kind | Triton's name | what |
|---|---|---|---|
"""

_TAIL: Final = """\
## The process

`process_*` (processor time, memory, open files, start), `python_info` and `python_gc_*` are prometheus_client's own.

## Reasons

`inferd_rejected_requests_total`: {rejected}, other.

`inferd_failed_requests_total`: {failed}, other.

`inferd_shed_requests_total`: queue (it is full), hopeless (the deadline is sooner than the model can answer), requests,
bytes and caller (`admission.max_requests`, `max_bytes`, and what one caller may hold), memory
(`admission.memory_share`; without a model where a message was refused before it was read).

A request that came into the queue has one of three ends: at every scrape and for each model version
`inferd_accepted_requests_total` = `inferd_requests_total{{code="OK"}}` + the sum of `inferd_failed_requests_total` +
`inferd_in_flight_requests`. What was refused before is in `inferd_requests_total` as well.
"""


def page() -> str:
    """The whole page."""
    lines = [_HEAD, "## Models\n", *_table(OF_MODELS), "\n## The server\n", *_table(OF_SERVER)]
    build = "`version`, `python`, `onnxruntime`"
    lines.append(f"| `inferd_build_info` | info | {build} | The versions that answer here. |\n")
    lines.append(
        _GPUS
        + "\n".join(
            f"| `{one.name}` | {'counter' if one.is_counter else 'gauge'} | `{one.triton}` | {one.text} |"
            for one in OF_GPUS
        )
        + "\n"
    )
    told = {"rejected": ", ".join(dict.fromkeys(REJECTED.values())), "failed": ", ".join(FAILED.values())}
    return "\n".join([*lines, _TAIL.format(**told)])


def _table(declared: Iterable[Series[Any]]) -> Iterator[str]:
    yield "| name | kind | labels | what |"
    yield "|---|---|---|---|"
    for series in declared:
        labels = ", ".join(f"`{label}`" for label in series.labels)
        yield f"| `{series.name}` | {series.kind} | {labels} | {series.text} |"


if __name__ == "__main__":
    print(page(), end="")
