"""HTTP/2 connections of a server: an nghttp2 session each, under asyncio. See h2.pxd.

Whatever one read brings is handled at once, and whatever that produces leaves in one write.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.buffer cimport PyBUF_WRITE
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_XDECREF
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from inferd._native.clock cimport monotonic_ns
from inferd._native.hub cimport Hub
from inferd._native.nghttp2 cimport *
from inferd._native.session cimport Session
from inferd._native.stranger cimport not_http2
from inferd._native.stream cimport Stream

cdef enum:
    # So long may the reads of one connection keep the loop from all others.
    TURN_NS = 300000
    # A client that has spent this part of what max_unpaid_frames allows waits longer for the next one.
    SUSPECT_SHARE = 8
    FIRST_OUT_BYTES = 4096
    WRITE_BYTES = 262144
    # From here on a read of its own is cheaper than a copy.
    LANDING_BYTES = 16384
    LARGE_FRAME_BYTES = 65536
    # From here on an answer's bytes are cheaper handed over where they are.
    LENT_BYTES = 32768

    # Whom we leave so soon may come back as soon, and a connection is dearer to make than anything sent on it.
    SHORT_LIFE_NS = 1000000000

cdef double SUSPECT_REST_S = 0.05
cdef double LINGER_S = 0.1
# A flood stays with a connection that is not read from, before it can begin again on the next one.
cdef double FLOOD_LINGER_S = 1.0

cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject** bytes, Py_ssize_t size) except -1
    # Not as objects: while its size changes nobody else may hold one.
    PyObject* new_bytes "PyBytes_FromStringAndSize" (const char* data, Py_ssize_t size) except NULL
    char* bytes_data "PyBytes_AS_STRING" (PyObject* bytes)
    char* PyByteArray_AS_STRING(object array)


@cython.final
cdef class Connection(Session):
    """One client's connection: an asyncio.BufferedProtocol."""

    def __dealloc__(self):
        Py_XDECREF(self.out)

    # --- asyncio calls these --------------------------------------------------------------------------

    def connection_made(self, transport) -> None:
        """The socket is open. Which settings hold is told once the client has shown that it speaks HTTP/2."""
        self.transport, self.write = transport, transport.write
        self.peername = transport.get_extra_info("peername")
        self.opened_ns = self.received_ns = monotonic_ns()
        self.open()
        self.hub.connections.add(self)
        if self.hub.is_leaving:
            self.go_away()

    def get_buffer(self, hint):
        """Where the next bytes go: to their place in a message where that is known, or into what all share."""
        cdef Stream stream
        cdef size_t room
        if self.frame_left >= LANDING_BYTES:
            stream = self.filling()
            if stream is not None:
                room = min(self.frame_left, stream.wanted - stream.filled)
                if room >= LANDING_BYTES:
                    self.landing = stream.incoming
                    self.landing_at = <uint8_t*>PyBytes_AS_STRING(stream.incoming) + stream.filled
                    return PyMemoryView_FromMemory(<char*>self.landing_at, <Py_ssize_t>room, PyBUF_WRITE)
        self.landing = None
        if self.is_costly or not self.is_greeted or self.frame_bytes >= LARGE_FRAME_BYTES:
            return self.hub.short_view
        return self.hub.view

    def buffer_updated(self, Py_ssize_t size) -> None:
        """So many bytes have come."""
        # Held until they are used up, whatever becomes of the stream meanwhile.
        cdef bytes landing = self.landing
        if landing is None:
            self.receive(<uint8_t*>PyByteArray_AS_STRING(self.hub.buffer), <size_t>size)
        else:
            self.landing = None
            self.receive(self.landing_at, <size_t>size)

    def data_received(self, bytes data not None) -> None:
        """The same on loops that offer get_buffer() only to subclasses of their own."""
        self.receive(<const uint8_t*>PyBytes_AS_STRING(data), <size_t>len(data))

    cdef int receive(self, const uint8_t* data, size_t size) except -1:
        cdef ssize_t read
        cdef Hub hub = self.hub
        cdef int64_t now_ns = monotonic_ns(), took_ns
        if self.closing_ns:
            return 0
        if now_ns - self.received_ns > 2 * TURN_NS:
            self.busy_ns = 0
        self.received_ns = now_ns
        hub.is_busy = True
        read = nghttp2_session_mem_recv(self.session, data, size)
        hub.is_busy = False
        if read < 0:
            self.give_up(<int>read)
        elif not self.is_dirty:
            self.is_dirty = True
            hub.dirty.append(self)
        hub.flush()
        took_ns = monotonic_ns() - now_ns
        self.busy_ns += took_ns
        self.is_costly = took_ns > (TURN_NS // 16 if self.is_costly else TURN_NS)
        if self.busy_ns > TURN_NS and not self.is_resting and self.closing_ns == 0:
            self.rest()
        return 0

    cdef int rest(self) except -1:
        """Have the loop see to others before it reads from here again, however much there is to read."""
        self.is_resting = True
        self.transport.pause_reading()
        if self.unpaid_frames * SUSPECT_SHARE > self.hub.max_unpaid_frames:
            self.hub.call_later(SUSPECT_REST_S, self.go_on)
        else:
            self.hub.call_soon(self.go_on)
        return 0

    def go_on(self) -> None:
        """The rest is over."""
        self.is_resting, self.busy_ns = False, 0
        if self.transport is not None and self.closing_ns == 0:
            self.transport.resume_reading()

    def eof_received(self) -> bool:
        """The client sends no more; False lets the transport close."""
        return False

    def connection_lost(self, exc) -> None:
        """The socket is gone, and every call on it."""
        cdef Stream stream
        self.closing_ns = monotonic_ns()
        self.hub.connections.discard(self)
        for stream in self.live():
            self.close_stream(stream)
        self.transport = self.write = None
        self.hub.on_left()

    def pause_writing(self) -> None:
        """The client reads too slowly: what is produced stays in the streams."""
        self.is_paused = True

    def resume_writing(self) -> None:
        """The socket takes more."""
        self.is_paused = False
        self.flush()

    # --- what goes out --------------------------------------------------------------------------------

    cdef int put(self, const uint8_t* data, size_t size) except -1:
        cdef size_t room
        if self.out == NULL:
            self.out_room = max(<size_t>FIRST_OUT_BYTES, size)
            self.out = new_bytes(NULL, self.out_room)
            self.out_size = 0
        elif self.out_size + size > self.out_room:
            room = max(2 * self.out_room, self.out_size + size)
            _PyBytes_Resize(&self.out, room)
            self.out_room = room
        memcpy(bytes_data(self.out) + self.out_size, data, size)
        self.out_size += size
        return 0

    cdef int lend(self, bytes owner, size_t start, size_t size) except -1:
        if size < LENT_BYTES:
            return self.put(<const uint8_t*>PyBytes_AS_STRING(owner) + start, size)
        self.emit()
        if self.write is not None:
            self.write(memoryview(owner)[start : start + size])
        return 0

    cdef int emit(self) except -1:
        """Hand over what was put."""
        cdef object data
        if self.out == NULL:
            return 0
        _PyBytes_Resize(&self.out, self.out_size)
        data = <object>self.out
        Py_DECREF(data)
        self.out = NULL
        if self.write is not None:
            self.write(data)
        return 0

    cdef int flush(self) except -1:
        """Have the session make its frames, and write them."""
        cdef const uint8_t* data
        cdef ssize_t size
        self.is_dirty = False
        while self.closing_ns == 0 and not self.is_paused:
            size = nghttp2_session_mem_send(self.session, &data)
            if size < 0:
                self.abort()
                return 0
            if size == 0:
                break
            self.put(data, <size_t>size)
            if self.out_size >= WRITE_BYTES:
                self.emit()
        self.emit()
        if (
            self.closing_ns == 0 and not self.is_paused
            and not nghttp2_session_want_read(self.session) and not nghttp2_session_want_write(self.session)
        ):
            self.close()
        return 0

    cdef int give_up(self, int error) except -1:
        """What came is no HTTP/2, or breaks it: say what can be said, and close."""
        if error == NGHTTP2_ERR_BAD_CLIENT_MAGIC:
            if self.write is not None:
                self.write(not_http2())
        else:
            self.is_flood = error == NGHTTP2_ERR_CALLBACK_FAILURE
            nghttp2_session_terminate_session(
                self.session, NGHTTP2_ENHANCE_YOUR_CALM if self.is_flood else NGHTTP2_PROTOCOL_ERROR)
            self.flush()
        if self.closing_ns == 0:
            self.close()
        return 0

    def close(self) -> None:
        """Close once everything written has left; a flood, or what was opened just now, later and unread until then.

        The second time it is closed at once.
        """
        cdef bint is_first = self.closing_ns == 0
        self.closing_ns = self.closing_ns or monotonic_ns()
        if self.transport is None:
            return
        if (
            is_first and not self.hub.is_leaving
            and (self.is_flood or self.closing_ns - self.opened_ns < SHORT_LIFE_NS)
        ):
            if not self.is_resting:
                self.transport.pause_reading()
            self.hub.call_later(FLOOD_LINGER_S if self.is_flood else LINGER_S, self.close)
        else:
            self.transport.close()

    def abort(self) -> None:
        """Close now."""
        self.closing_ns = self.closing_ns or monotonic_ns()
        if self.transport is not None:
            self.transport.abort()
