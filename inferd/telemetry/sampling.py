"""Which requests of which model are traced, and how clients may steer it."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, fields, replace
from typing import Final

from inferd._native.trace import Sampling, Traces


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """What is traced: nothing unless `on`, of what begins here the part `rate`, and so many; below 0 all."""

    on: bool
    rate: float
    count: int = -1


@dataclass(frozen=True, slots=True)
class TraceChange:
    """What is to be other than it was; None for what stays."""

    on: bool | None = None
    rate: float | None = None
    count: int | None = None


class Samplings:
    """Settings of the server, and for models what differs from them."""

    def __init__(self, traces: Traces, rate: float) -> None:
        """Trace this part of the requests, of every model."""
        self.traces: Final = traces
        self._first = self._settings = TraceSettings(True, rate)
        self._sampling = Sampling(traces)
        self._of_models: MutableMapping[str, tuple[TraceChange, Sampling]] = {}
        self._apply(self._sampling, self._settings, counts=True)

    def of(self, model: str) -> Sampling:
        """What says which requests of this model are traced. Ask again after a change."""
        own = self._of_models.get(model)
        return self._sampling if own is None else own[1]

    def settings(self, model: str = "") -> TraceSettings:
        """What holds now for a model, or for all that have no settings of their own."""
        own = self._of_models.get(model)
        if own is None:
            return replace(self._settings, count=self._sampling.left)
        return replace(_merged(self._settings, own[0]), count=own[1].left)

    def change(self, change: TraceChange, cleared: frozenset[str], model: str = "") -> None:
        """Have it so from now on, for one model or for the server.

        What is cleared is as it was at first, or for a model as the server has it.
        """
        if not model:
            first = {name: getattr(self._first, name) for name in cleared}
            self._settings = _merged(replace(self._settings, **first), change)
            self._apply(self._sampling, self._settings, counts=change.count is not None or "count" in cleared)
            for own, sampling in self._of_models.values():
                self._apply(sampling, _merged(self._settings, own), counts=False)
            return
        own, sampling = self._of_models.get(model, (TraceChange(), Sampling(self.traces)))
        is_new = model not in self._of_models
        said: Mapping[str, object] = {
            one.name: getattr(change, one.name) for one in fields(change) if getattr(change, one.name) is not None
        }
        own = replace(own, **dict.fromkeys(cleared), **said)  # type: ignore[arg-type]
        self._of_models[model] = (own, sampling)
        counts = is_new or change.count is not None or "count" in cleared
        self._apply(sampling, _merged(self._settings, own), counts=counts)

    def _apply(self, sampling: Sampling, settings: TraceSettings, *, counts: bool) -> None:
        sampling.on = settings.on
        sampling.set_rate(settings.rate)
        if counts:
            sampling.left = settings.count


def _merged(settings: TraceSettings, change: TraceChange) -> TraceSettings:
    return TraceSettings(
        settings.on if change.on is None else change.on,
        settings.rate if change.rate is None else change.rate,
        settings.count if change.count is None else change.count,
    )
