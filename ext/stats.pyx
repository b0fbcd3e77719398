"""Counts and histograms of one model version, kept in C and read only when somebody scrapes them."""

cimport cython
from libc.stdlib cimport calloc, free

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

    cdef void add(self, double value) noexcept nogil:
        cdef int i = 0
        while i < self.limit_count and value > self.limits[i]:
            i += 1
        self.counted[i] += 1
        self.total += value

    def observe(self, double value) -> None:
        """Count one observation."""
        self.add(value)

    @property
    def counts(self) -> tuple[int, ...]:
        """Observations per bucket, not cumulative; one more than there are bounds."""
        return tuple([self.counted[i] for i in range(self.limit_count + 1)])


@cython.final
cdef class ModelStats:
    """What one model version has done since it was loaded."""

    def __cinit__(self, seconds, rows):
        self.request_seconds = Histogram(seconds)
        self.queue_seconds = Histogram(seconds)
        self.compute_seconds = Histogram(seconds)
        self.batch_rows = Histogram(rows)

    cpdef void finished(self, int code, double seconds) noexcept:
        """Count one request that has its answer or its error."""
        if 0 <= code < CODES:
            self.codes[code] += 1
        self.request_seconds.add(seconds)

    cpdef void ran(self, Request request) noexcept:
        """Count one request that went through a run: its wait and the run of its batch."""
        self.queue_seconds.add(<double>(request.taken_ns - request.arrived_ns) * 1e-9)
        self.compute_seconds.add(<double>request.run_ns * 1e-9)

    def batch(self, int64_t rows) -> None:
        """Count one run of the session. Only runner threads call this, under the GIL."""
        self.batches += 1
        self.rows += rows
        self.batch_rows.add(<double>rows)

    @property
    def requests_by_code(self) -> dict[int, int]:
        """Finished requests by gRPC status code, without the codes that never came."""
        return {code: self.codes[code] for code in range(CODES) if self.codes[code]}
