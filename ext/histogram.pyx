"""Durations counted in an HDR histogram, with percentiles that merge without loss."""

cimport cython
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free


@cython.final
cdef class Histogram:
    """Durations in ns: any value from 0 to 2**40 ns (18 minutes) to within 0.1 %; longer ones count as that."""

    def __cinit__(self):
        self.hdr.counted = <int64_t*>calloc(HDR_SLOTS, sizeof(int64_t))
        if self.hdr.counted == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.hdr.counted)

    def record(self, int64_t value_ns, int64_t count=1) -> None:
        """Count a duration, `count` times. Raises ValueError if either is negative."""
        if value_ns < 0 or count < 0:
            raise ValueError(f"a duration and its count cannot be negative: {value_ns}, {count}")
        if count:
            hdr_add(&self.hdr, value_ns, count)

    def merge(self, Histogram other not None) -> None:
        """Count everything that the other one counted."""
        cdef int i
        if other.hdr.count == 0:
            return
        for i in range(HDR_SLOTS):
            self.hdr.counted[i] += other.hdr.counted[i]
        if self.hdr.count == 0 or other.hdr.lowest < self.hdr.lowest:
            self.hdr.lowest = other.hdr.lowest
        self.hdr.highest = max(self.hdr.highest, other.hdr.highest)
        self.hdr.count += other.hdr.count
        self.hdr.total += other.hdr.total

    @property
    def count(self) -> int:
        """How many durations were counted."""
        return self.hdr.count

    @property
    def total_ns(self) -> int:
        """Their sum, exact."""
        return self.hdr.total

    @property
    def min_ns(self) -> int:
        """The shortest, exact; 0 when nothing was counted."""
        return self.hdr.lowest

    @property
    def max_ns(self) -> int:
        """The longest, exact; 0 when nothing was counted."""
        return self.hdr.highest

    @property
    def mean_ns(self) -> float:
        """The mean, exact; 0 when nothing was counted."""
        return self.hdr.total / <double>self.hdr.count if self.hdr.count else 0.0

    def percentile(self, double percent) -> int:
        """The value in ns that `percent` of the durations do not exceed; 0 when nothing was counted.

        Raises ValueError if `percent` is not within 0 and 100.
        """
        cdef int64_t wanted, seen = 0
        cdef int i
        if not 0 <= percent <= 100:
            raise ValueError(f"not a percentage: {percent}")
        wanted = max(1, <int64_t>(percent / 100 * self.hdr.count + 0.5))
        for i in range(HDR_SLOTS):
            seen += self.hdr.counted[i]
            if seen >= wanted:
                return max(self.hdr.lowest, min(<int64_t>hdr_highest(i), self.hdr.highest))
        return self.hdr.highest

    def buckets(self):
        """Pairs of (highest duration in ns that counts as the same, count), ascending, without the empty ones."""
        cdef int i
        for i in range(HDR_SLOTS):
            if self.hdr.counted[i]:
                yield int(hdr_highest(i)), int(self.hdr.counted[i])
