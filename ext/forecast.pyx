"""The soonest that a request can be answered: see forecast.pxd.

What it says is a bound and no guess: a request that misses it could not have been answered in time unless those ahead
of it go away. So each part is the least that it may be. A run of some rows takes no less than the fastest of the last
runs with as many rows or fewer; rows ahead leave in the batches that get the most rows through in a given time; what
runs now is over at once.

Where it is known that rows leave in batches of one size, those ahead take as long as runs of that very size. One run may
be lucky, many in a row are not: IN_ROW batches take no less than the fastest IN_ROW that came one after the other.

What was fast is found anew in each stretch of STRETCH runs, so a slow while, when a neighbour had the machine, is
forgotten after two. And while nothing runs nothing is known: else a bound that refuses everybody would never be put
right.
"""

cimport cython
from libc.limits cimport LLONG_MAX
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from inferd._native.batch cimport SIZE_CLASSES

cdef enum:
    STRETCH = 64
    IN_ROW = 8
    ENOUGH = 8              # runs of a tier before it counts: the fastest of a few may have been slow by chance
    FRESH_NS = 1000000000   # beside some times what a run takes, so old may the last run be
    FRESH_RUNS = 4


@cython.final
cdef class Forecast:
    """Learns from runs of one model, by the size class of their rows (see Batch).

    `instances`: how many batches may run at a time, without short ones on the loop. `max_rows`: the most rows that one run may have.
    """

    def __cinit__(self, *, int64_t instances, int64_t max_rows):
        self.instances, self.max_rows = max(instances, 1), max(max_rows, 1)

    def __dealloc__(self):
        cdef int size_class
        for size_class in range(SIZE_CLASSES):
            free(self.of_class[size_class])

    def observe(self, int size_class, int64_t rows, int64_t run_ns, int64_t now_ns) -> None:
        """Learn from one run that succeeded and ended now."""
        cdef Floors* floors
        cdef Tier* tier
        cdef int at = 0, index
        cdef Full* full
        cdef int64_t floor_ns = 0
        if not 0 <= size_class < SIZE_CLASSES or rows < 1:
            raise IndexError(size_class)
        floors = self.of_class[size_class]
        if floors == NULL:
            floors = self.of_class[size_class] = <Floors*>calloc(1, sizeof(Floors))
            if floors == NULL:
                raise MemoryError
        # What is true of so many rows is true of more, so a run speaks for the tier above its rows.
        while (<int64_t>1 << at) < rows and at < TIERS - 1:
            at += 1
        tier = &floors.tiers[at]
        tier.now_ns = min(tier.now_ns, run_ns) if tier.now_runs else run_ns
        tier.now_runs += 1
        note_full(&floors.fulls[at - 1 if <int64_t>1 << at > rows else at], rows, run_ns)
        floors.runs += 1
        floors.last_ns = now_ns
        for index in range(TIERS):
            tier = &floors.tiers[index]
            if tier.now_runs + tier.before_runs >= ENOUGH:
                floor_ns = max(floor_ns, fastest_ns(tier.now_ns, tier.now_runs, tier.before_ns, tier.before_runs))
            floors.floor_ns[index] = floor_ns
            floors.most_ns = max(floors.most_ns if index else 0, floor_ns, mean_ns(&floors.fulls[index]))
        if floors.runs == STRETCH:
            floors.runs = 0
            for index in range(TIERS):
                tier = &floors.tiers[index]
                tier.before_ns, tier.before_runs = tier.now_ns, tier.now_runs
                tier.now_ns, tier.now_runs = 0, 0
                full = &floors.fulls[index]
                full.before_ns, full.before_runs, full.before_mean_ns = full.now_ns, full.now_runs, full.now_mean_ns
                full.now_ns, full.now_runs, full.now_mean_ns = 0, 0, 0
                if full.before_runs == 0:
                    full.rows = 0

    cdef int64_t needs_ns(
        self, int size_class, int64_t rows, int64_t ahead, int64_t most, bint full, int64_t instances, int64_t now_ns
    ) noexcept:
        """The least time until `rows` rows behind `ahead` others are answered; 0 if that is not known.

        `most`: how many rows of those ahead may share a run; with `full` so many do. `instances`: how many runs there
        may be at a time.
        """
        cdef Floors* floors = self.of_class[size_class]
        cdef Full* batches
        cdef int tier = 0
        cdef int64_t last, many
        cdef double row_ns = <double>LLONG_MAX, many_row_ns
        if floors == NULL or now_ns - floors.last_ns > FRESH_NS + FRESH_RUNS * floors.floor_ns[TIERS - 1]:
            return 0
        # A tier holds from its own size to just before the next one's, where its rows are cheapest.
        while tier < TIERS and <int64_t>1 << tier <= most:
            last = most if tier == TIERS - 1 else min((<int64_t>2 << tier) - 1, most)
            row_ns = min(row_ns, <double>floors.floor_ns[tier] / <double>last)
            tier += 1
        many_row_ns = row_ns
        batches = &floors.fulls[tier - 1]
        if full and batches.rows == most and batches.now_runs + batches.before_runs >= ENOUGH:
            row_ns = <double>fastest_ns(batches.now_ns, batches.now_runs, batches.before_ns, batches.before_runs) / most
            many_row_ns = max(row_ns, <double>mean_ns(batches) / most)
        tier = 0
        while tier < TIERS - 1 and <int64_t>2 << tier <= rows:
            tier += 1
        # Rows that may still join the run of these are not waited for.
        ahead = max(ahead + rows - most, 0) if rows <= most else ahead
        many = ahead - ahead % (IN_ROW * most)
        return floors.floor_ns[tier] + <int64_t>(
            (<double>many * many_row_ns + <double>(ahead - many) * row_ns) / <double>instances
        )

    cdef bint is_hopeless(
        self, int size_class, int64_t rows, int64_t ahead, int64_t most, bint full, int64_t instances,
        int64_t slack_ns, int64_t now_ns,
    ) noexcept:
        """Whether `rows` rows behind `ahead` others cannot be answered within `slack_ns`."""
        cdef Floors* floors = self.of_class[size_class]
        # Runs of one row each would take no longer than this, and most requests have far more time.
        if floors == NULL or slack_ns // (ahead + 1) >= floors.most_ns:
            return False
        return slack_ns < self.needs_ns(size_class, rows, ahead, most, full, instances, now_ns)

    def least_ns(
        self, int size_class, int64_t rows, *, int64_t ahead=0, int64_t most=1, bint full=False, int64_t now_ns
    ) -> int:
        """The same as what a queue asks: the least time until the answer, 0 if it is not known."""
        if not 0 <= size_class < SIZE_CLASSES:
            raise IndexError(size_class)
        return self.needs_ns(size_class, max(rows, 1), max(ahead, 0), max(most, 1), full, self.instances, now_ns)


cdef int64_t fastest_ns(int64_t now_ns, int now_runs, int64_t before_ns, int before_runs) noexcept:
    """The faster of two stretches of runs, at least one of which had some."""
    if now_runs and before_runs:
        return min(now_ns, before_ns)
    return now_ns if now_runs else before_ns


cdef int64_t mean_ns(Full* full) noexcept:
    """The least that one of many took; 0 if there were not so many in a row."""
    return fastest_ns(full.now_mean_ns, full.now_mean_ns > 0, full.before_mean_ns, full.before_mean_ns > 0)


cdef void note_full(Full* full, int64_t rows, int64_t run_ns) noexcept:
    """One more run of these sizes. Smaller ones than the largest are what was left over."""
    cdef int64_t among_ns
    if rows < full.rows:
        return
    if rows > full.rows:
        memset(full, 0, sizeof(Full))
        full.rows = rows
    full.now_ns = min(full.now_ns, run_ns) if full.now_runs else run_ns
    full.now_runs += 1
    full.in_row += 1
    full.in_row_ns += run_ns
    if full.in_row == IN_ROW:
        among_ns = full.in_row_ns // IN_ROW
        full.now_mean_ns = min(full.now_mean_ns, among_ns) if full.now_mean_ns else among_ns
        full.in_row, full.in_row_ns = 0, 0
