"""The metrics page as numbers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from .process import POLL_S, Server


@dataclass(frozen=True)
class Counted:
    """What is counted for one model, over its versions, at one moment or between two."""

    codes: dict[str, int]
    requests: int
    rows: int
    batches: int
    queue_rows: int
    batch_rows: dict[float, int]  # batches by upper bound of their size, not cumulative

    def since(self, before: Counted) -> Counted:
        """What was counted after `before`."""
        return Counted(
            {code: more for code, n in self.codes.items() if (more := n - before.codes.get(code, 0))},
            self.requests - before.requests,
            self.rows - before.rows,
            self.batches - before.batches,
            self.queue_rows,
            {bound: more for bound, n in self.batch_rows.items() if (more := n - before.batch_rows.get(bound, 0))},
        )


def samples(server: Server) -> list[tuple[str, dict[str, str], float]]:
    """Every sample of the page: name, labels, value."""
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(server.metrics_text())
        for sample in family.samples
    ]


def counted(server: Server, model: str) -> Counted:
    """What is counted for one model now."""
    of_model = [(name, labels, value) for name, labels, value in samples(server) if labels.get("model") == model]

    def total(wanted: str) -> int:
        return int(sum(value for name, _, value in of_model if name == wanted))

    codes: dict[str, int] = {}
    cumulative: dict[float, int] = {}
    for name, labels, value in of_model:
        if name == "inferd_requests_total" and value:
            codes[labels["code"]] = codes.get(labels["code"], 0) + int(value)
        if name == "inferd_batch_rows_bucket":
            bound = float(labels["le"])
            cumulative[bound] = cumulative.get(bound, 0) + int(value)
    below, batch_rows = 0, {}
    for bound, batches in sorted(cumulative.items()):
        if batches > below:
            batch_rows[bound] = batches - below
        below = batches
    return Counted(
        codes,
        total("inferd_request_duration_seconds_count"),
        total("inferd_rows_total"),
        total("inferd_batches_total"),
        total("inferd_queue_rows"),
        batch_rows,
    )


def wait_for(server: Server, model: str, condition: Callable[[Counted], bool], timeout_s: float = 10.0) -> Counted:
    """Scrape until what is counted meets the condition."""
    end = time.monotonic() + timeout_s
    while not condition(now := counted(server, model)):
        assert time.monotonic() < end, f"still {now} after {timeout_s} s"
        time.sleep(POLL_S)
    return now


def balance(found: list[tuple[str, dict[str, str], float]], model: str) -> tuple[int, int, int, int]:
    """Of one scrape: requests accepted, ended OK, failed, in flight."""
    of_model = [(name, labels, int(value)) for name, labels, value in found if labels.get("model") == model]

    def total(wanted: str, **said: str) -> int:
        return sum(value for name, labels, value in of_model if name == wanted and said.items() <= labels.items())

    return (
        total("inferd_accepted_requests_total"),
        total("inferd_requests_total", code="OK"),
        total("inferd_failed_requests_total"),
        total("inferd_in_flight_requests"),
    )
