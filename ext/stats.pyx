"""Counts and histograms of one model version, kept in C and read only when somebody scrapes them."""

cimport cython
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free

from inferd._native.batch cimport Batch
from inferd._native.clock cimport epoch_ms
from inferd._native.trace cimport Execution, execution_of, took_part
from inferd._native.wire cimport Request


@cython.final
cdef class Histogram:
    """Counts of observations up to each bound, the last count being those above all bounds."""

    def __cinit__(self, bounds):
        cdef int i
        self.bounds = tuple(float(bound) for bound in bounds)
        self.limit_count = len(self.bounds)
        self.limits = <double*>calloc(self.limit_count + 1, sizeof(double))
        self.counted = <int64_t*>calloc(self.limit_count + 1, sizeof(int64_t))
        if self.limits == NULL or self.counted == NULL:
            raise MemoryError
        for i in range(self.limit_count):
            self.limits[i] = self.bounds[i]

    def __dealloc__(self):
        free(self.limits)
        free(self.counted)

    cdef void add(self, double value, int64_t times) noexcept nogil:
        cdef int i = 0
        while i < self.limit_count and value > self.limits[i]:
            i += 1
        self.counted[i] += times
        self.total += value * <double>times

    def observe(self, double value) -> None:
        """Count one observation."""
        self.add(value, 1)

    cdef void exemplify(self, double value, bytes trace_id) noexcept:
        """Remember a trace as the example of the bucket that this value is counted in."""
        cdef int i = 0
        while i < self.limit_count and value > self.limits[i]:
            i += 1
        if self.examples is None:
            self.examples = {}
        self.examples[i] = (trace_id, value, <double>epoch_ms() * 1e-3)

    @property
    def exemplars(self) -> dict[int, tuple[bytes, float, float]]:
        """By bucket: the id of a trace, what it took, and when that was, in seconds since the Unix epoch."""
        return {} if self.examples is None else dict(self.examples)

    @property
    def counts(self) -> tuple[int, ...]:
        """Observations per bucket, not cumulative; one more than there are bounds."""
        return tuple([self.counted[i] for i in range(self.limit_count + 1)])


@cython.final
cdef class SizeStats:
    """What batches of one number of rows have taken."""

    def __cinit__(self, int64_t rows):
        self.rows = rows


@cython.final
cdef class ModelStats:
    """What one model version has done since it was loaded."""

    def __cinit__(self, seconds, rows):
        self.request_seconds_of = [None] * CODES
        self.request_seconds_of[0] = Histogram(seconds)
        self.queue_seconds = Histogram(seconds)
        self.compute_seconds = Histogram(seconds)
        self.input_seconds, self.infer_seconds = Histogram(seconds), Histogram(seconds)
        self.output_seconds = Histogram(seconds)
        self.batch_rows = Histogram(rows)
        self.by_rows, self.by_reason, self.shed_for = {}, {}, {}

    cdef Histogram seconds_of(self, int code):
        """How long requests took that ended so."""
        if self.request_seconds_of[code] is None:
            self.request_seconds_of[code] = Histogram(self.queue_seconds.bounds)
        return self.request_seconds_of[code]

    cpdef void finished(self, int code, double seconds) noexcept:
        """Count one request that has its answer or its error. One that was accepted has ended() instead.

        A code that gRPC does not know is UNKNOWN, as gRPC reads it.
        """
        if not 0 <= code < CODES:
            code = UNKNOWN
        self.codes[code] += 1
        self.seconds_of(code).add(seconds, 1)

    cpdef void accept(self) noexcept:
        """Count one request that has come into the queue."""
        self.accepted += 1
        self.in_flight += 1

    cpdef void ended(self, int code, double seconds) noexcept:
        """Count the end of a request that was accepted."""
        self.in_flight -= 1
        if code:
            self.failed[code if 0 < code < CODES else UNKNOWN] += 1
        self.finished(code, seconds)

    cpdef void exemplify(self, int code, double seconds, bytes trace_id) noexcept:
        """Remember a trace as an example of requests that end so after such a time."""
        self.seconds_of(code if 0 <= code < CODES else UNKNOWN).exemplify(seconds, trace_id)

    cpdef void expire(self) noexcept:
        """Count one request whose time was over before it ran."""
        self.expired += 1

    cpdef void ran(self, Request request, bint waited_for) noexcept:
        """Count one request that went through a run: its wait and the run of its batch."""
        if not waited_for:
            self.wasted_rows += request.rows
        self.queue_seconds.add(<double>(request.taken_ns - request.arrived_ns) * 1e-9, 1)
        self.compute_seconds.add(<double>request.run_ns * 1e-9, 1)

    def batch(
        self, Batch batch not None, int64_t started_ns, int64_t gathered_ns, int64_t computed_ns, int64_t ended_ns,
        int64_t padded_rows=0,
    ) -> None:
        """Count one batch that ran well, by when its parts ended, and tell each member how long it took.

        It was filled up with `padded_rows`. Each member waited for all of it, so the histograms have its times once for each of them.
        """
        cdef int64_t members = len(batch.members)
        cdef SizeStats size = self.by_rows.get(batch.rows)
        cdef Request request
        cdef Execution execution = None
        for request in batch.members:
            request.run_ns = ended_ns - started_ns
            if request.trace is not None:
                if execution is None:
                    execution = execution_of(
                        started_ns, gathered_ns, computed_ns, ended_ns, batch.rows, padded_rows, members,
                        batch.close_reason)
                took_part(request.trace, execution)
        self.batches += 1
        self.by_reason[batch.close_reason] = self.by_reason.get(batch.close_reason, 0) + 1
        self.busy_ns += ended_ns - started_ns
        self.rows += batch.rows
        self.padded_rows += padded_rows
        self.last_run_ms = epoch_ms()
        self.batch_rows.add(<double>batch.rows, 1)
        self.input_seconds.add(<double>(gathered_ns - started_ns) * 1e-9, members)
        self.infer_seconds.add(<double>(computed_ns - gathered_ns) * 1e-9, members)
        self.output_seconds.add(<double>(ended_ns - computed_ns) * 1e-9, members)
        if size is None:
            if len(self.by_rows) == MAX_SIZES:
                return
            size = self.by_rows[batch.rows] = SizeStats(batch.rows)
        size.batches += 1
        size.input_ns += gathered_ns - started_ns
        size.infer_ns += computed_ns - gathered_ns
        size.output_ns += ended_ns - computed_ns

    def run_failed(self, int64_t started_ns, int64_t ended_ns) -> None:
        """Count the time of a run that gave no answers."""
        self.busy_ns += ended_ns - started_ns

    @property
    def request_seconds_by_code(self) -> dict[int, Histogram]:
        """How long requests took, by gRPC status code, without the codes that never came."""
        return {code: self.request_seconds_of[code] for code in range(CODES) if self.codes[code]}

    def stopped(self, Batch batch not None) -> None:
        """Count one batch whose run was stopped because nobody waited for it."""
        self.stopped_batches += 1
        self.wasted_rows += batch.rows

    cpdef int shed(self, str reason) except -1:
        """Count one request that was kept out of the queue for this; for no reason, none was."""
        if reason:
            self.shed_for[reason] = self.shed_for.get(reason, 0) + 1
        return 0

    @property
    def shed_by_reason(self) -> dict[str, int]:
        """Requests kept out of the queue for want of room or time; see InferdError.shed_for."""
        return dict(self.shed_for)

    @property
    def batches_by_reason(self) -> dict[str, int]:
        """Batches that ran well by why they left the queue when they did; see BatchQueue.take."""
        return dict(self.by_reason)

    @property
    def failed_by_code(self) -> dict[int, int]:
        """Accepted requests that did not end well, by gRPC status code, without the codes that never came."""
        return {code: self.failed[code] for code in range(CODES) if self.failed[code]}

    @property
    def sizes(self) -> list[SizeStats]:
        """By number of rows, rising; of MAX_SIZES different ones at most, those that came first."""
        return [self.by_rows[rows] for rows in sorted(self.by_rows)]

    @property
    def requests_by_code(self) -> dict[int, int]:
        """Finished requests by gRPC status code, without the codes that never came."""
        return {code: self.codes[code] for code in range(CODES) if self.codes[code]}
