"""Slots: where the batches of a session run, one at a time in each."""

from __future__ import annotations

import time
from collections import OrderedDict

from inferd._native.batch import Batch
from inferd._native.gather import gather
from inferd._native.reply import OutputView
from inferd.device import Buffer
from inferd.errors import RegionShrank
from inferd.session.bindings import Plan, allocated_views, bind, known_output_shapes
from inferd.session.buffers import Buffers
from inferd.session.failures import WRONG_OUTPUT_SHAPE, run_failure
from inferd.session.objects import feeds_of, views_of
from inferd.session.session import Session
from inferd.session.tensors import nbytes_of

# A slot remembers this many prepared bindings; a model with varying shapes needs one per shape.
MAX_PLANS = 128


class Slot:
    """Buffers and bindings in which one batch at a time runs. One thread uses a slot."""

    def __init__(self, session: Session) -> None:
        """Allocates nothing yet: buffers grow to the largest batch seen and stay."""
        self._session = session
        self._buffers = Buffers(session.device, len(session.inputs), len(session.outputs))
        self._plans: OrderedDict[int | bytes, Plan] = OrderedDict()
        self._declared_shapes_hold = True
        # Of the last run, on the monotonic clock: when its inputs were in place, when ONNX Runtime was done.
        self.gathered_ns = self.computed_ns = 0

    def run(self, batch: Batch) -> list[OutputView]:
        """Run a batch; the views it returns are valid until the next run in this slot.

        Raises InputRefused if an operator refused a value, RegionShrank if a request's shared memory is not there any
        more, RunFailed for any other failure.
        """
        try:
            return self._run_objects(batch) if self._session.has_strings else self._run_bound(batch)
        except RegionShrank:
            raise
        except Exception as failure:
            raise run_failure(failure) from failure

    def has_prepared(self, batch: Batch) -> bool:
        """Whether a run of this shape finds memory and binding ready; strings need neither."""
        return self._session.has_strings or self._key(batch) in self._plans

    def _run_bound(self, batch: Batch) -> list[OutputView]:
        """Memory is bound, nothing is copied by the runtime."""
        plan = self._plan(batch)
        for index, nbytes in enumerate(plan.input_nbytes):
            buffer = self._buffers.inputs[index]
            assert buffer is not None  # _plan has allocated it
            gather(batch, index, buffer.host_address, buffer.nbytes)
            self._session.device.upload(buffer, nbytes)
        self.gathered_ns = time.monotonic_ns()
        try:
            self._session.ort.run_with_iobinding(plan.binding, self._session.run_options)
        except RuntimeError as failure:
            if plan.views is None or WRONG_OUTPUT_SHAPE not in str(failure):
                raise
            # The file declares output shapes that the graph does not keep to: let the runtime allocate.
            self._declared_shapes_hold = False
            self._plans.clear()
            return self._run_bound(batch)
        self.computed_ns = time.monotonic_ns()
        if plan.views is None:
            return allocated_views(self._session, plan.binding)
        for buffer, nbytes in plan.output_buffers:
            self._session.device.download(buffer, nbytes)
        return plan.views

    def _run_objects(self, batch: Batch) -> list[OutputView]:
        feeds = feeds_of(self._session, batch)
        self.gathered_ns = time.monotonic_ns()
        values = self._session.ort.run(None, feeds, self._session.run_options)
        self.computed_ns = time.monotonic_ns()
        return views_of(self._session, values)

    def _plan(self, batch: Batch) -> Plan:
        key = self._key(batch)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._prepare(batch)
            self._plans[key] = plan
            if len(self._plans) > MAX_PLANS:
                self._plans.popitem(last=False)
        elif isinstance(key, bytes):
            self._plans.move_to_end(key)
        return plan

    def _key(self, batch: Batch) -> int | bytes:
        uniform = batch.signature.uniform and not batch.apart
        return batch.rows if uniform else batch.shape_key

    def _prepare(self, batch: Batch) -> Plan:
        session, buffers = self._session, self._buffers
        input_nbytes = tuple(batch.input_nbytes(index) for index in range(len(session.inputs)))
        shapes = known_output_shapes(session, batch) if self._declared_shapes_hold else None
        for index, nbytes in enumerate(input_nbytes):
            self._at_least(buffers.inputs, index, nbytes)
        for index, shape in enumerate(shapes or ()):
            self._at_least(buffers.outputs, index, nbytes_of(session.outputs[index].element_type, shape))
        return bind(session, batch, buffers, input_nbytes, shapes)

    def _at_least(self, buffers: list[Buffer | None], index: int, nbytes: int) -> None:
        if self._buffers.grow(buffers, index, nbytes):
            self._plans.clear()
