"""Where the bytes of streams go: see outlet.pxd."""

from libc.stdint cimport int32_t, int64_t, uint8_t


cdef class Outlet:
    """What a stream knows of its connection, and a hub of all of them."""

    cdef void touch(self) noexcept:
        """The session has something to send now."""

    cdef int put(self, const uint8_t* data, size_t size) except -1:
        """Take bytes that go out after all before them."""
        raise NotImplementedError

    cdef int lend(self, bytes owner, size_t start, size_t size) except -1:
        """The same with a part of an object that nobody changes any more; a large one is not copied."""
        raise NotImplementedError

    cdef int flush(self) except -1:
        """Send what the session has to send."""
        raise NotImplementedError

    cdef int watch(self, int64_t deadline_ns) except -1:
        """Have expire() called then at the latest."""
        raise NotImplementedError

    cdef bint is_too_much(self, size_t size) noexcept:
        """Whether there is no memory to spare just now for a message of this size."""
        return False

    cdef int hold_back(self) except -1:
        """A large message was refused by its length: have the client send no more than the beginning of the next."""
        return 0

    cdef int let_come(self, int32_t stream_id) except -1:
        """A large message that has begun to come may come whole."""
        return 0

    cdef int64_t expire(self, int64_t now_ns) except -1:
        """End every call whose deadline has passed; says when the next one does, or 0."""
        raise NotImplementedError
