"""Schedule: who is served first, for how long a request may wait and how many may. Time is an argument.

A level is served when all higher ones are empty, but for this: one whose oldest request has waited for `patience_ns`
is owed the next batch once PASSED_OVER others went to higher levels since its last. So no level waits for ever, and
none costs those above it more than one batch in PASSED_OVER + 1. Of several that are owed one the highest comes first,
and each gets its own before any gets a second.
"""

cimport cython
from libc.limits cimport LLONG_MAX
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free

from inferd._native.line cimport Group, Line
from inferd._native.wire cimport Request

cdef enum:
    # 285 years: what asks for more asks for no limit, and adding it to a clock does not overflow.
    LONGEST_TIMEOUT_US = 0x20000000000000


cdef int64_t after(int64_t now_ns, int64_t timeout_us) noexcept:
    """The time so long after `now_ns`; 0, which is never, for no timeout and for one that nobody lives to see."""
    return now_ns + timeout_us * 1000 if 0 < timeout_us < <int64_t>LONGEST_TIMEOUT_US else 0


@cython.final
cdef class Schedule:
    """One policy for each level, the highest level first; a model without levels has one.

    A policy has what QueuePolicy of inferd.repository has. `default_level`, from 1, is that of requests which name
    none or one that there is not. `patience_ns`, 0 for strict priority: see above. `in_order`: batches are of
    neighbours only, so that requests leave in the order in which they came; that goes with one level, and with none
    that delays requests.
    """

    def __cinit__(self, policies, *, int default_level=1, int64_t patience_ns=0, bint in_order=False):
        cdef int level
        policies = tuple(policies)
        if not 1 <= len(policies) <= MOST_LEVELS:
            raise ValueError(f"there are from 1 to {MOST_LEVELS} levels, not {len(policies)}")
        if not 1 <= default_level <= len(policies):
            raise ValueError(f"the default level is from 1 to {len(policies)}, not {default_level}")
        self.levels = self.line_count = len(policies)
        self.late_line = -1
        self.default_level = default_level - 1
        self.patience_ns, self.in_order = patience_ns, in_order
        self.policies = <Policy*>calloc(len(policies), sizeof(Policy))
        if self.policies == NULL:
            raise MemoryError
        for level, said in enumerate(policies):
            is_timed = said.default_timeout_ns or said.allow_timeout_override
            delays = is_timed and said.timeout_action == "delay"
            self.policies[level] = Policy(
                timeout_ns=said.default_timeout_ns,
                most_requests=said.max_queue_size,
                delays=delays,
                overridable=said.allow_timeout_override,
                is_silent=not is_timed and said.timeout_action == "reject",
            )
            self.refuses |= is_timed and not delays
            if delays and self.late_line < 0:
                self.late_line = self.levels
                self.line_count += 1
        if in_order and self.line_count > 1:
            raise ValueError("requests that leave in order have one level and are not delayed")

    def __dealloc__(self):
        free(self.policies)

    cdef int level_of(self, Request request) noexcept:
        """The level that a request asks for, from 0."""
        return <int>request.priority - 1 if 1 <= request.priority <= <unsigned>self.levels else self.default_level

    cdef void set_times(self, Request request, int64_t now_ns) noexcept:
        """Set until when a request that comes now, at its level, may wait."""
        cdef Policy* policy = &self.policies[request.level]
        request.until_ns = now_ns + policy.timeout_ns if policy.timeout_ns else 0
        if policy.is_silent:
            request.deadline_ns = sooner(request.deadline_ns, after(now_ns, request.timeout_us))
        elif policy.overridable:
            request.until_ns = sooner(request.until_ns, after(now_ns, request.timeout_us))

    cdef void* next(self, Line* lines, Group* first_full, int64_t now_ns, int64_t delay_ns, Reason* reason) noexcept:
        """The request that the next batch begins with; NULL if none may leave yet. Some must be waiting.

        `delay_ns`: how long the oldest may wait for a batch to fill. `first_full`: the first of the full groups.
        """
        cdef int line = self.owed(lines, now_ns)
        reason[0] = TURN
        if line < 0:
            reason[0] = DELAYED if delay_ns else READY
            line = self.waited(lines, now_ns - delay_ns if delay_ns else LLONG_MAX)
        if line >= 0:
            return lines[line].first
        reason[0] = FULL
        return self.next_full(lines, first_full)

    cdef void* next_full(self, Line* lines, Group* first_full) noexcept:
        """The first request of the full group that goes first: of the highest level, and of those the first to fill.

        NULL if none may go: in order none goes before the oldest request's, and one of nothing but late requests does
        not while others wait.
        """
        cdef Group* group = first_full
        cdef void* best = NULL
        if self.in_order:
            group = <Group*>(<Request>lines[0].first).group
            return group.first if group.is_full else NULL
        while group != NULL:
            if best == NULL or (<Request>group.first).line < (<Request>best).line:
                best = group.first
            group = group.next_full
        if best != NULL and (<Request>best).line == self.late_line and not self.is_late_only(lines):
            return NULL
        return best

    cdef int owed(self, Line* lines, int64_t now_ns) noexcept:
        """The highest level that has waited too long and been passed over too often; -1 if there is none."""
        cdef int level
        if self.patience_ns:
            for level in range(1, self.levels):
                if (
                    lines[level].skipped >= PASSED_OVER
                    and lines[level].first != NULL
                    and now_ns - (<Request>lines[level].first).arrived_ns >= self.patience_ns
                ):
                    return level
        return -1

    cdef bint is_late_only(self, Line* lines) noexcept:
        """True if no request that is in time waits: only then are late ones looked at."""
        cdef int line
        for line in range(self.levels):
            if lines[line].first != NULL:
                return False
        return True

    cdef int waited(self, Line* lines, int64_t since_ns) noexcept:
        """The highest line whose first request came no later than `since_ns`; -1 if there is none."""
        cdef int line
        for line in range(self.line_count if self.is_late_only(lines) else self.levels):
            if lines[line].first != NULL and (<Request>lines[line].first).arrived_ns <= since_ns:
                return line
        return -1

    cdef int64_t oldest_ns(self, Line* lines) noexcept:
        """When the first request came of the line that waited() will name; lines must not all be empty."""
        cdef int64_t found = LLONG_MAX
        cdef int line
        for line in range(self.line_count if self.is_late_only(lines) else self.levels):
            if lines[line].first != NULL:
                found = min(found, (<Request>lines[line].first).arrived_ns)
        return found

    cdef void served(self, Line* lines, int line) noexcept:
        """A batch begins with a request of `line`."""
        cdef int other
        lines[line].skipped = 0
        for other in range(line + 1, self.levels):
            if lines[other].first != NULL:
                lines[other].skipped += 1
