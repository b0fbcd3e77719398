"""Methods that Python code answers."""

cimport cython

from inferd._native.stream cimport Method, Stream

import logging

log = logging.getLogger("inferd.rpc")


@cython.final
cdef class PythonMethod(Method):
    """Hands each call to an object of its own.

    `begin` takes the Stream and gives that object; its message(body, compressed), half_close(), sent() and closed()
    are called on the loop's thread as these things happen. It is kept in Stream.call.
    """

    cdef object answering

    def __cinit__(self, begin not None):
        self.answering = begin

    cdef int begin(self, Stream stream) except -1:
        stream.call = self.answering(stream)
        return 0

    cdef int message(self, Stream stream, bytes body, bint compressed) except -1:
        if stream.call is not None:
            stream.call.message(body, compressed)
        return 0

    cdef int half_close(self, Stream stream) except -1:
        if stream.call is not None:
            stream.call.half_close()
        return 0

    cdef void sent(self, Stream stream) noexcept:
        try:
            if stream.call is not None:
                stream.call.sent()
        except Exception:
            log.exception("This is a bug.")

    cdef void closed(self, Stream stream) noexcept:
        try:
            if stream.call is not None:
                stream.call.closed()
        except Exception:
            log.exception("This is a bug.")
