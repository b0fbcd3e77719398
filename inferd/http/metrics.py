"""``/metrics`` for Prometheus, in its text format or in OpenMetrics, as the scraper prefers."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from inferd.auth.judge import Judge
from inferd.http.guard import METRICS, guarded
from inferd.http.routes import application


class _Collected(Collector):
    """What one scrape found, so that it can be rendered away from the loop."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def metrics_app(registry: CollectorRegistry, judge: Judge | None = None) -> Starlette:
    """Answer ``/metrics`` from ``registry``, compressed when asked; ``/`` says where to look.

    prometheus_client's own application does the same on the loop from end to end and at any path and
    method. Here the counters are read on the loop, which writes them, and the text is made on a worker.
    """
    # One scrape at a time: a burst of them costs the loop no more per turn than one does.
    one_scrape = asyncio.Lock()
    # A worker of its own: the loop's shared ones may all be busy, and a stall is when metrics matter.
    worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="metrics")

    async def metrics(request: Request) -> Response:
        accept = ",".join(request.headers.getlist("accept"))
        compressed = _takes_gzip(",".join(request.headers.getlist("accept-encoding")))
        async with one_scrape:
            families = []
            for family in registry.collect():
                families.append(family)
                # With many models even reading takes milliseconds; requests go first in between.
                await asyncio.sleep(0)
            collected = _Collected(families)
            loop = asyncio.get_running_loop()
            body, content_type = await loop.run_in_executor(worker, _render, collected, accept, compressed)
        headers = {"content-type": content_type, "vary": "accept, accept-encoding"}
        if compressed:
            headers["content-encoding"] = "gzip"
        return Response(body, headers=headers)

    async def hint(request: Request) -> Response:
        return PlainTextResponse("The metrics are at /metrics\n")

    return application(guarded([Route("/metrics", metrics, name=METRICS), Route("/", hint, name=METRICS)], judge))


def _render(collected: Collector, accept: str, compressed: bool) -> tuple[bytes, str]:
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):
        # It fails on versions that are no numbers; the format every scraper knows is an answer too.
        encode, content_type = choose_encoder("")
    text = encode(collected)
    # Level 1: the scraper is near, and the processor belongs to the models.
    return (gzip.compress(text, compresslevel=1, mtime=0) if compressed else text), content_type


def _takes_gzip(accept_encoding: str) -> bool:
    for offer in accept_encoding.lower().split(","):
        coding, _, weight = offer.partition(";")
        if coding.strip() == "gzip":
            digits = weight.strip().removeprefix("q=").strip()
            return digits == "" or digits.strip("0.") != ""
    return False
