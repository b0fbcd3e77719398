"""Slots: where the batches of a session run, one at a time in each."""

from __future__ import annotations

import ctypes
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from typing import TypeAlias

from inferd._native.batch import Batch
from inferd._native.gather import gather
from inferd._native.region import Region
from inferd._native.reply import OutputView
from inferd.errors import InferdError, OutOfDeviceMemory, RegionShrank, RunStopped
from inferd.session.bindings import Plan, allocated_views, bind, known_output_shapes
from inferd.session.buffers import Buffers
from inferd.session.failures import WRONG_OUTPUT_SHAPE, run_failure
from inferd.session.lent import NOTHING, fetch, lend
from inferd.session.objects import feeds_of, views_of
from inferd.session.options import RunOptions
from inferd.session.padding import prepared_rows
from inferd.session.runtime import ort
from inferd.session.session import Session
from inferd.session.tensors import nbytes_of

# A slot remembers this many prepared bindings; a model with varying shapes needs one per shape.
MAX_PLANS = 128

Key: TypeAlias = int | bytes | tuple[int, bytes]


class Slot:
    """Buffers and bindings in which one batch at a time runs. One thread uses a slot."""

    def __init__(self, session: Session) -> None:
        """Allocates nothing yet: buffers grow to the largest batch seen and stay."""
        self._session = session
        self._told = RunOptions(session.options)
        self._lock = threading.Lock()
        self._running: Batch | None = None
        self._current: ort.RunOptions | None = None
        self._is_stopped = False
        self._lane = session.lane(self)
        self._buffers = Buffers(self._lane, len(session.inputs), len(session.outputs))
        self._plans: OrderedDict[Key, Plan] = OrderedDict()
        self._declared_shapes_hold = True
        self._pads = session.device.pads
        self._sizes: tuple[int, ...] = ()
        self._lent = NOTHING
        # Of the last run, on the monotonic clock: when its inputs were in place, when ONNX Runtime was done.
        self.gathered_ns = self.computed_ns = 0
        self.padded_rows = 0  # and how many rows it had that nobody asked for

    @property
    def session(self) -> Session:
        """What runs in it."""
        return self._session

    def run(self, batch: Batch) -> list[OutputView]:
        """Run a batch; the views it returns are valid until the next run in this slot.

        Raises InputRefused if an operator refused a value, RegionShrank if a request's shared memory is not there any
        more, RunStopped after stop(), OutOfDeviceMemory, DeviceLost, and RunFailed for any other failure.
        """
        with self._lock:
            self._running, self._is_stopped = batch, False
        self._lent = NOTHING
        try:
            return self._run_objects(batch) if self._session.has_strings else self._run_bound(batch)
        except RegionShrank:
            self._lane.settle()
            raise
        except Exception as failure:
            raise self._meaning(failure) from failure
        finally:
            with self._lock:
                self._running = self._current = None

    def hand_over(self, outputs: Iterable[tuple[Region, int, int, int]]) -> None:
        """Bring what is left of the last run's answers to clients' memory on GPUs, where the run has not written it.

        Each is the region, where in it, the address of the bytes in a view of the run, and how many. Raises as run().
        """
        lane, lent, self._lent = self._lane, self._lent, NOTHING
        try:
            with lane.turn():
                for region, at, address, nbytes in outputs:
                    if not lent.has_written(region.memory.address + at):
                        lane.hand_over(region.memory, at, address, nbytes)
                lane.wait()
        except Exception as failure:
            raise self._meaning(failure) from failure

    def _meaning(self, failure: Exception) -> InferdError:
        """What to raise for a run that has failed, once nothing of it is under way any more."""
        self._lane.settle()  # or the next batch would be gathered while this one's bytes are still read
        lost = self._session.device.failure_of(failure)
        if isinstance(lost, OutOfDeviceMemory):
            self._release()
        if lost is None and self._is_stopped:
            return RunStopped("nobody waited for the run any more")
        return lost or run_failure(failure)

    def stop(self, batch: Batch) -> None:
        """Have the run of this batch end before its next operator, if it is the one that runs. From any thread.

        What is recorded as a CUDA graph, or played back, runs to its end.
        """
        with self._lock:
            if self._running is batch:
                self._is_stopped = True
                if self._current is not None:
                    self._current.terminate = True

    def _stoppable(self, options: ort.RunOptions) -> ort.RunOptions:
        """The options of the run that begins: from now on it can be stopped, and it was if somebody was quick."""
        if self._session.graph_ids is None:
            with self._lock:
                self._current = options
                options.terminate = self._is_stopped
        return options

    def has_prepared(self, batch: Batch) -> bool:
        """Whether a run of this shape finds memory and binding ready; strings need neither."""
        return self._session.has_strings or self._key(batch, self._run_rows(batch)) in self._plans

    def _release(self) -> None:
        """Leave the room to what is tried next."""
        self._plans.clear()
        with suppress(Exception), self._lane.turn():
            self._buffers.release()

    def close(self) -> None:
        """Give its memory back; nothing runs in it any more."""
        self._plans.clear()
        self._lane.close()

    def _run_bound(self, batch: Batch) -> list[OutputView]:
        """Memory is bound, nothing is copied by the runtime."""
        lane, rows, run_rows = self._lane, batch.rows, self._run_rows(batch)
        with lane.turn():
            plan = self._plan(batch, run_rows)
            if batch.on_gpu:
                plan, self._lent = lend(self._session, self._told, self._buffers, batch, plan, run_rows)
            if not plan.records:
                return self._run_plan(plan, batch, rows, run_rows)
        with lane.turn(captures=True):
            views = self._run_plan(plan, batch, rows, run_rows)
        if plan.records:
            plan.records -= 1
        return views

    def _run_plan(self, plan: Plan, batch: Batch, rows: int, run_rows: int) -> list[OutputView]:
        session, lane, lent = self._session, self._lane, self._lent
        self.padded_rows = run_rows - rows
        for index, nbytes in plan.inputs:
            if index in lent.inputs:
                continue
            buffer = self._buffers.inputs[index]
            written = gather(batch, index, buffer.host_address, buffer.nbytes)
            if written < nbytes:
                # Zeros rather than rows of an earlier batch: nobody's data is in anybody else's run.
                ctypes.memset(buffer.host_address + written, 0, nbytes - written)
            lane.upload(buffer, nbytes)
            if batch.on_gpu:
                fetch(lane, batch, index, buffer)
        self.gathered_ns = time.monotonic_ns()
        try:
            with lane.computing(plan.bound):
                session.ort.run_with_iobinding(plan.binding, self._stoppable(plan.run_options))
        except RuntimeError as failure:
            if plan.outputs is None or not WRONG_OUTPUT_SHAPE.search(str(failure)):
                raise
            # The file declares output shapes that the graph does not keep to: let the runtime allocate.
            self._declared_shapes_hold = False
            return self._again(batch)
        if plan.outputs is None:
            lane.wait()
            self.computed_ns = time.monotonic_ns()
            views = allocated_views(session, plan.binding, rows, run_rows)
            if views is None:
                self._pads = False
                return self._again(batch)
            return views
        found = plan.views(rows, run_rows)
        for index, (buffer, nbytes) in enumerate(found.downloads):
            if index not in lent.outputs:
                lane.download(buffer, nbytes)
        lane.wait()
        self.computed_ns = time.monotonic_ns()
        return found.views

    def _again(self, batch: Batch) -> list[OutputView]:
        """Run it with another plan, as what was known of the model was wrong."""
        self._lane.wait()
        self._plans.clear()
        self._lent = NOTHING
        run_rows = self._run_rows(batch)
        return self._run_plan(self._plan(batch, run_rows), batch, batch.rows, run_rows)

    def _run_objects(self, batch: Batch) -> list[OutputView]:
        session = self._session
        feeds = feeds_of(session, batch)
        options = self._told.waiting if session.graph_ids is None else self._told.unrecorded
        self.gathered_ns = time.monotonic_ns()
        with self._lane.turn(), self._lane.computing():
            values = session.ort.run(None, feeds, self._stoppable(options))
        self.computed_ns = time.monotonic_ns()
        return views_of(session, values)

    def _run_rows(self, batch: Batch) -> int:
        """The rows of the run: those of the batch, or more where batches are padded."""
        if not self._pads or not batch.signature.batched or batch.apart:
            return batch.rows
        most = batch.signature.max_rows
        if not self._sizes or self._sizes[-1] != most:
            self._sizes = self._session.prepared_sizes(most)
        return prepared_rows(batch.rows, self._sizes)

    def _plan(self, batch: Batch, run_rows: int) -> Plan:
        key = self._key(batch, run_rows)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._prepare(batch, run_rows)
            self._plans[key] = plan
            if len(self._plans) > MAX_PLANS:
                self._plans.popitem(last=False)
        elif not isinstance(key, int):
            self._plans.move_to_end(key)
        return plan

    def _key(self, batch: Batch, run_rows: int) -> Key:
        if batch.signature.uniform and not batch.apart:
            return run_rows
        if not self._pads:
            return batch.shape_key
        shapes = [None if shape is None else shape[1:] for shape in self._input_shapes(batch)]
        return run_rows, repr(shapes).encode()

    def _input_shapes(self, batch: Batch) -> list[list[int] | None]:
        """None for inputs that the requests leave to the model."""
        places = range(len(self._session.inputs))
        return [batch.input_shape(index) if batch.has_input(index) else None for index in places]

    def _prepare(self, batch: Batch, run_rows: int) -> Plan:
        session, buffers = self._session, self._buffers
        shapes = self._input_shapes(batch)
        input_nbytes = tuple(batch.input_nbytes(index) for index in range(len(session.inputs)))
        if run_rows != batch.rows:
            shapes = [None if shape is None else [run_rows, *shape[1:]] for shape in shapes]
            input_nbytes = tuple(nbytes // batch.rows * run_rows for nbytes in input_nbytes)
        output_shapes = known_output_shapes(session, batch, run_rows) if self._declared_shapes_hold else None
        output_nbytes = tuple(
            nbytes_of(info.element_type, shape)
            for info, shape in zip(session.outputs, output_shapes or (), strict=False)
        )
        if not buffers.fits(input_nbytes, output_nbytes):
            self._plans.clear()
            buffers.grow(input_nbytes, output_nbytes)
        return bind(session, self._told, buffers, shapes, input_nbytes, output_shapes)
