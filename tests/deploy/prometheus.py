"""What a running Prometheus is asked."""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

WAIT_S = 40.0
POLL_S = 0.1


@dataclass(frozen=True)
class Prometheus:
    port: int

    def ask(self, path: str, **arguments: str) -> Any:
        """The data of an answer of its API."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def value(self, query: str) -> float | None:
        """What a query for one number gives now, None for nothing."""
        found = self.ask("query", query=query)["result"]
        return float(found[0]["value"][1]) if found else None

    def wait(self, query: str, is_it: Callable[[float], bool]) -> float:
        """Wait until a query gives such a number."""
        end = time.monotonic() + WAIT_S
        while (value := self.value(query)) is None or not is_it(value):
            assert time.monotonic() < end, f"{query} is still {value}"
            time.sleep(POLL_S)
        return value
