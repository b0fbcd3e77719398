"""Slices of a measurement: what a generator's connections did between two moments."""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy

from urllib.parse import unquote


cdef void tally_answer(Tally* tally, const Accepted* accepted, Call* call) noexcept nogil:
    """Count an OK answer as a right one, or put it aside to be judged."""
    cdef int i
    cdef Odd* odd
    for i in range(accepted.count):
        if (
            accepted.variants[i].size == call.received
            and memcmp(accepted.variants[i].data, call.answer, call.received) == 0
        ):
            tally.right += 1
            return
    if tally.odd_count < MAX_ODD and tally.odd_bytes + call.received <= MAX_ODD_BYTES:
        odd = <Odd*>malloc(sizeof(Odd))
        if odd != NULL:
            odd.next = tally.odd
            odd.request = call.request
            odd.answer = call.answer
            odd.size = call.received
            tally.odd = odd
            tally.odd_count += 1
            tally.odd_bytes += call.received
            # It is the tally's now.
            call.answer = NULL
            call.answer_capacity = 0
            return
    tally.unjudged += 1


cdef void tally_failure(Tally* tally, const Call* call) noexcept nogil:
    if tally.failures[call.code] == 0:
        tally.text_sizes[call.code] = call.text_size
        memcpy(tally.texts[call.code], call.text, call.text_size)
    tally.failures[call.code] += 1


@cython.final
cdef class Slice:
    """What happened between two moments of the monotonic clock. Slices of the same or following time merge.

    `latency` holds the OK calls only. `odd` are answers that equalled none accepted so far, as (number of the
    request, serialized message), for somebody to judge; `unjudged` counts those that were too many to keep.
    `in_flight`, `overdue` (due and not yet sent) and `oldest_ns` (age of the oldest of both) are of the end.
    """

    def __cinit__(self):
        self.latency = Histogram()
        self.tally.latency = &self.latency.hdr

    def __dealloc__(self):
        cdef Odd* odd
        while self.tally.odd != NULL:
            odd = self.tally.odd
            self.tally.odd = odd.next
            free(odd.answer)
            free(odd)

    @property
    def sent(self) -> int:
        """Calls started."""
        return self.tally.sent

    @property
    def ok(self) -> int:
        """Calls that ended with OK and a whole answer."""
        return self.tally.ok

    @property
    def sent_bytes(self) -> int:
        """Bytes given to the sockets, framing included."""
        return self.tally.sent_bytes

    @property
    def received_bytes(self) -> int:
        """Bytes taken from the sockets, framing included."""
        return self.tally.received_bytes

    @property
    def right(self) -> int:
        """OK answers that equalled an accepted one, where answers are compared."""
        return self.tally.right

    @property
    def unjudged(self) -> int:
        """OK answers that equalled none and were too many to keep."""
        return self.tally.unjudged

    @property
    def connects(self) -> int:
        """Connections that came to stand."""
        return self.tally.connects

    @property
    def lost(self) -> int:
        """Connections that broke, or did not come to stand."""
        return self.tally.lost

    @property
    def failures(self) -> dict[int, int]:
        """Calls that did not end with OK, by gRPC code."""
        return {code: self.tally.failures[code] for code in range(CODES) if self.tally.failures[code]}

    @property
    def messages(self) -> dict[int, str]:
        """The text of the first failure of each code."""
        return {
            code: unquote(self.tally.texts[code][:self.tally.text_sizes[code]].decode("utf-8", "replace"))
            for code in range(CODES) if self.tally.failures[code]
        }

    @property
    def odd(self) -> list[tuple[int, bytes]]:
        """Answers to judge: the number of the request, and the message that came."""
        cdef Odd* odd = self.tally.odd
        found = []
        while odd != NULL:
            found.append((odd.request, PyBytes_FromStringAndSize(<char*>odd.answer + 5, odd.size - 5)))
            odd = odd.next
        return found

    def merge(self, Slice other not None) -> None:
        """Add what the other one saw; its odd answers move over. What is of the end is the later one's, or added."""
        cdef Odd* odd
        cdef int code
        if self.end_ns == other.end_ns:
            self.in_flight += other.in_flight
            self.overdue += other.overdue
            self.oldest_ns = max(self.oldest_ns, other.oldest_ns)
        elif self.end_ns < other.end_ns:
            self.in_flight, self.overdue, self.oldest_ns = other.in_flight, other.overdue, other.oldest_ns
        self.start_ns = min(self.start_ns, other.start_ns)
        self.end_ns = max(self.end_ns, other.end_ns)
        self.latency.merge(other.latency)
        self.tally.sent += other.tally.sent
        self.tally.ok += other.tally.ok
        self.tally.sent_bytes += other.tally.sent_bytes
        self.tally.received_bytes += other.tally.received_bytes
        self.tally.right += other.tally.right
        self.tally.unjudged += other.tally.unjudged
        self.tally.connects += other.tally.connects
        self.tally.lost += other.tally.lost
        for code in range(CODES):
            if other.tally.failures[code] and not self.tally.failures[code]:
                self.tally.text_sizes[code] = other.tally.text_sizes[code]
                memcpy(self.tally.texts[code], other.tally.texts[code], TEXT_BYTES)
            self.tally.failures[code] += other.tally.failures[code]
        while other.tally.odd != NULL:
            odd = other.tally.odd
            other.tally.odd = odd.next
            odd.next = self.tally.odd
            self.tally.odd = odd
        other.tally.odd_count, other.tally.odd_bytes = 0, 0
