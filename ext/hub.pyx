"""What the connections of one server share: see hub.pxd."""

cimport cython
from libc.stdint cimport int64_t, uint32_t

from inferd._native.outlet cimport Outlet

cdef enum:
    READ_BYTES = 262144
    # Where large frames come, to read no more than one's first part here and the rest to where it belongs; and where
    # what comes takes long, to do little of it at a time.
    SHORT_READ_BYTES = 8192


@cython.final
cdef class Hub:
    """The methods, the limits, the buffer that is read into, and what is to be sent.

    `find` is asked for the Method of a path that `methods` does not have, and may answer None. `call_soon` and
    `call_later` are the loop's. `on_deadline` is told when, on the monotonic clock in ns, expire() is next to be
    called; `on_left` each time that a connection takes no more calls, or is lost. `max_unpaid_frames`: see
    Session.unpaid_frames.
    """

    def __cinit__(
        self, dict methods not None, find, call_soon, call_later, on_deadline, on_left, *, size_t max_message_bytes,
        size_t max_metadata_bytes, uint32_t max_streams, uint32_t window_bytes, int64_t max_unpaid_frames,
    ):
        self.methods, self.find = methods, find
        self.call_soon, self.call_later = call_soon, call_later
        self.on_deadline, self.on_left = on_deadline, on_left
        self.connections, self.dirty = set(), []
        self.max_message_bytes, self.max_metadata_bytes = max_message_bytes, max_metadata_bytes
        self.max_streams, self.window_bytes = max_streams, window_bytes
        self.max_unpaid_frames = max_unpaid_frames
        self.buffer = bytearray(READ_BYTES)
        self.view = memoryview(self.buffer)
        self.short_view = self.view[:SHORT_READ_BYTES]

    cdef int flush(self) except -1:
        """Send what all connections have to send, one write for each."""
        cdef Outlet connection
        cdef list dirty
        self.flush_is_planned = False
        while self.dirty:
            dirty, self.dirty = self.dirty, []
            for connection in dirty:
                connection.flush()
        return 0

    cdef bint is_too_much(self, size_t size) noexcept:
        """Whether a message of this size is to be refused just now; then it is counted."""
        if self.spare_bytes == 0 or size < self.spare_bytes:
            return False
        self.unread += 1
        return True

    cdef int plan(self) except -1:
        """Have a flush called soon, unless one comes anyway."""
        if not self.is_busy and not self.flush_is_planned:
            self.flush_is_planned = True
            self.call_soon(self.flush_now)
        return 0

    def flush_now(self) -> None:
        """What a planned flush calls."""
        self.flush()

    cdef int watch(self, int64_t deadline_ns) except -1:
        """Have expire() called then at the latest."""
        if self.next_deadline_ns == 0 or deadline_ns < self.next_deadline_ns:
            self.next_deadline_ns = deadline_ns
            self.on_deadline(deadline_ns)
        return 0

    def expire(self, int64_t now_ns) -> None:
        """End every call whose deadline has passed, and ask to be called at the next one."""
        cdef Outlet connection
        cdef int64_t due_ns, next_ns = 0
        self.next_deadline_ns = 0
        for connection in tuple(self.connections):
            due_ns = connection.expire(now_ns)
            if due_ns and (next_ns == 0 or due_ns < next_ns):
                next_ns = due_ns
        if next_ns:
            self.watch(next_ns)
        self.flush()
