"""Runs before the first request: to learn how long batches take, and so that no caller pays for a first time."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from inferd import synthetic
from inferd._native.batch import alone
from inferd._native.reply import answer
from inferd._native.signature import Signature
from inferd.errors import InferdError, ModelFailed
from inferd.pace import ENOUGH, Pace
from inferd.repository import SampleTensor, WarmupSample
from inferd.session import MAX_PLANS, Session, Slot, prepared_rows

log = logging.getLogger("inferd.warmup")

REPORTED_ROWS = (1, 8, 32)
# Beside a longer run nobody notices what the first one of a size costs: a binding, some tens of microseconds.
LONGEST_PREPARED_NS = 2_000_000


@dataclass(slots=True)
class Measured:
    """What the runs of generated rows have shown."""

    pace: Pace
    samples: list[tuple[int, int, int]] = field(default_factory=list)  # (size class, rows, run ns)
    run_ns: dict[int, int] = field(default_factory=dict)  # by rows, of REPORTED_ROWS


class Warmup:
    """The runs of one model version before it is READY. `length` is what generated rows have for open dimensions."""

    def __init__(
        self, session: Session, signature: Signature, slots: Sequence[Slot], length: int | None, budget_ns: int
    ) -> None:
        """The time starts now; samples of config.pbtxt do not count against it."""
        self._session, self._signature, self._slots = session, signature, slots
        self._rows = None if length is None else synthetic.Rows(signature, session.inputs, length)
        self._end_ns = time.monotonic_ns() + budget_ns

    def measure(self) -> Measured:
        """Run growing batches until larger ones win nothing or the time is up; then the sizes people ask about."""
        max_rows = self._signature.max_rows
        found = Measured(Pace(max_rows))
        if self._rows is None:
            return found
        try:
            self._grow(found)
            for rows in REPORTED_ROWS:
                known = found.pace.row_ns(rows)
                if known is not None:
                    found.run_ns[rows] = int(known * rows)
                elif rows <= max_rows and self._has_time(2 * (found.pace.run_ns(rows) or 0)):
                    self._timed(self._slots[0], rows)
                    found.run_ns[rows] = self._timed(self._slots[0], rows)[1]
        except InferdError as failure:
            self._stopped(failure)
        return found

    def rehearse(self, samples: Iterable[WarmupSample], *, rows_in_dims: bool) -> None:
        """Run what config.pbtxt asks to be run, in every slot. Raises ModelFailed if a sample does not run.

        With `rows_in_dims` nobody said that dims are without the batch axis, so they may have it.
        """
        for sample in samples:
            try:
                tensors = self._tensors(sample, rows_in_dims)
                for slot in self._slots:
                    for _ in range(sample.count):
                        batch = alone(self._signature, synthetic.bound(self._signature, tensors))
                        answer(batch, slot.run(batch))
            except InferdError as failure:
                raise ModelFailed(f"config.pbtxt: model_warmup {sample.name!r} does not run: {failure}") from failure

    def prepare(self, pace: Pace, largest: int, spare: Slot, short_ns: int) -> None:
        """Run each size up to `largest` once in every slot, if there is time; the largest one first, for the memory.

        Those that run for at most `short_ns` run in the spare slot too.
        """
        if self._rows is None:
            return
        try:
            for rows in self._sizes(pace, largest):
                expected_ns = pace.run_ns(rows) or 0
                for slot in (*self._slots, spare) if expected_ns <= short_ns else self._slots:
                    for _ in range(self._session.first_runs):
                        if self._has_time(expected_ns):
                            self._timed(slot, rows)
        except InferdError as failure:
            self._stopped(failure)

    def _sizes(self, pace: Pace, largest: int) -> Iterable[int]:
        if not self._session.device.pads:
            return _to_prepare(pace, largest)
        sizes = self._session.prepared_sizes(self._signature.max_rows)
        return reversed([rows for rows in sizes if rows <= prepared_rows(largest, sizes)])

    def _grow(self, found: Measured) -> None:
        pace = found.pace
        for slot in self._slots:
            self._timed(slot, 1)
        while True:
            rows = pace.limit
            if pace.row_ns(rows) is not None and pace.settled:
                return
            expected_ns = (pace.run_ns(rows) or 0) * (ENOUGH + len(self._slots))
            if pace.row_ns(1) is not None and not self._has_time(expected_ns):
                return
            for slot in self._slots:
                self._timed(slot, rows)  # the first run of a size allocates, so it does not count
            for _ in range(ENOUGH):
                size_class, took_ns = self._timed(self._slots[0], rows)
                found.samples.append((size_class, rows, took_ns))
                pace.observe(rows, took_ns)

    def _timed(self, slot: Slot, rows: int) -> tuple[int, int]:
        """The size class of a batch of generated rows, and how long it ran."""
        assert self._rows is not None
        batch = alone(self._signature, self._rows.request(rows))
        started_ns = time.monotonic_ns()
        slot.run(batch)
        return batch.size_class, time.monotonic_ns() - started_ns

    def _has_time(self, expected_ns: int) -> bool:
        return time.monotonic_ns() + expected_ns <= self._end_ns

    def _stopped(self, failure: InferdError) -> None:
        log.warning("warm-up stopped early", extra={"model": self._signature.model, "reason": str(failure)})

    def _tensors(self, sample: WarmupSample, rows_in_dims: bool) -> list[tuple[str, str, tuple[int, ...], bytes]]:
        """What a client would send. Raises ModelFailed if that cannot be, or a file is too short."""
        if sample.rows > 1 and not self._signature.batched:
            raise ModelFailed(f"its batch_size is {sample.rows}, and the model does not batch")
        ranks = {info.name: len(info.wire) for info in self._session.inputs}
        tensors = []
        for seed, (name, tensor) in enumerate(sorted(sample.inputs.items())):
            row = _row(tensor, seed)
            if not self._signature.batched or (rows_in_dims and len(tensor.dims) == ranks.get(name)):
                tensors.append((name, tensor.datatype, tensor.dims, row))
            else:
                tensors.append((name, tensor.datatype, (sample.rows, *tensor.dims), row * sample.rows))
        return tensors


def _row(tensor: SampleTensor, seed: int) -> bytes:
    """The raw contents of one row."""
    if tensor.source == "file":
        assert tensor.file is not None
        try:
            found = tensor.file.read_bytes()
        except OSError as failure:
            raise ModelFailed(f"{tensor.file}: {failure.strerror}") from failure
        needed = synthetic.nbytes(tensor.datatype, tensor.dims)
        if needed is None:
            return found
        if len(found) < needed:
            raise ModelFailed(
                f"{tensor.file} has {len(found)} bytes; {tensor.datatype} {list(tensor.dims)} is {needed}"
            )
        return found[:needed]
    return synthetic.raw(tensor.datatype, tensor.dims, None if tensor.source == "zero" else seed)


def _to_prepare(pace: Pace, largest: int) -> Iterable[int]:
    """Every size that a batch may have and that a slot remembers; of those that run for longer the learnt ones."""
    for rows in range(largest, 0, -1):
        short = largest <= MAX_PLANS and (pace.run_ns(rows) or 0) <= LONGEST_PREPARED_NS
        if short or rows == largest or rows in pace.sizes:
            yield rows
