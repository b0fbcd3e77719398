"""One inference in Python: bytes of a ModelInferRequest in, bytes of an answer out, counted once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial

from inferd._native.admission import Admission, Caller, let_go
from inferd._native.bind import bind
from inferd._native.region import Regions
from inferd._native.stats import ModelStats
from inferd._native.wire import decode
from inferd.auth.current import WHO, require
from inferd.config import Settings
from inferd.errors import Code, InferdError
from inferd.models import ROWS_BOUNDS, SECONDS_BOUNDS, Models
from inferd.telemetry.calls import CALL
from inferd.telemetry.logs import ABOUT
from inferd.telemetry.recent import RecentErrors
from inferd.telemetry.watching import Metadata, Watching, named


class Answering:
    """What the reference transport's inference methods share."""

    def __init__(
        self,
        models: Models,
        settings: Settings,
        regions: Regions | None,
        recent: RecentErrors,
        admission: Admission,
        watching: Watching,
    ) -> None:
        self._admission, self._watching = admission, watching
        self._models, self._regions, self._recent = models, regions, recent
        self._timeout_ns = settings.inference.timeout_ms * 1_000_000
        # Requests for models that are not here are counted without a name: clients must not make label values.
        self.unknown_stats = ModelStats(SECONDS_BOUNDS, ROWS_BOUNDS)

    async def answer(
        self,
        body: bytes,
        remaining_s: float | None,
        caller: str,
        *,
        streamed: bool = False,
        metadata: Callable[[], Metadata | None] = tuple,
    ) -> bytes:
        """A ModelInferResponse, or the ModelStreamInferResponse with it. Raises InferdError.

        `remaining_s` is the caller's deadline; the server's default one holds if there is none. Requests of one
        principal, or else of one `caller`, are counted together. `metadata` gives that of the call, if somebody
        wants it.
        """
        started_ns = time.monotonic_ns()
        stats, code, request, names = self.unknown_stats, Code.OK, None, None
        call = CALL.get()  # of HTTP, which notes its end; over gRPC inference has none
        try:
            request = decode(body)
            request.streamed = streamed
            if call is not None:
                call.infers(request)
            require(request.model_name)
            model = self._models.find(request.model_name, request.model_version)
            stats, names = model.stats, (model.name, str(model.version))
            if call is not None:
                call.asks_for(*names)
            elif self._watching.samplings is not None:
                self._watching.begin(names, request, started_ns, metadata() or ())
            signature = model.answering().signature
            self._admission.admit(request, self._caller(caller))
            bind(signature, request, self._regions)
            request.deadline_ns = self._deadline_ns(started_ns, remaining_s)
            return await model.infer(request)
        except InferdError as failure:
            code = failure.code
            self._recent.note(failure)
            stats.shed(failure.shed_for)
            raise
        except asyncio.CancelledError:
            code = Code.CANCELLED
            raise
        except Exception:
            code = Code.INTERNAL
            if request is not None and call is None:
                ABOUT.set(partial(_about, request.model_name, named(request)))
            raise
        finally:
            # It has a time of arrival once it is in a queue.
            if request is not None and not request.arrived_ns:
                let_go(request)
            count = stats.ended if request is not None and request.arrived_ns else stats.finished
            now_ns = time.monotonic_ns()
            seconds = (now_ns - started_ns) * 1e-9
            count(code, seconds)
            if call is not None:
                if request is not None:
                    call.inferred(request, code)
                if call.trace is not None:
                    stats.exemplify(code, seconds, call.trace.trace_id)
            elif request is not None and names is not None:
                trace = self._watching.tell(names, request, code, started_ns, now_ns)
                if trace is not None:
                    stats.exemplify(code, seconds, trace.trace_id)
            else:
                self._watching.found_none(request, code, started_ns, now_ns, metadata() or (), streamed=streamed)

    def _caller(self, connection: str) -> Caller:
        who = WHO.get()
        if who is None or not who.name:
            return self._admission.caller(connection)
        return self._admission.caller(who.name, who.weight)

    def _deadline_ns(self, now_ns: int, remaining_s: float | None) -> int:
        """On our monotonic clock, 0 for none."""
        if remaining_s is not None:
            return max(now_ns + int(remaining_s * 1e9), 1)
        return now_ns + self._timeout_ns if self._timeout_ns else 0


def _about(model: str, said: Mapping[str, object]) -> Mapping[str, object]:
    return {"model": model, **said}
