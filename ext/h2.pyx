"""HTTP/2 connections of a server: an nghttp2 session each, under asyncio. See h2.pxd.

Whatever one read brings is handled at once, and whatever that produces leaves in one write.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF
from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from inferd._native.header cimport monotonic_ns
from inferd._native.hub cimport Hub
from inferd._native.live cimport CONNECTIONS, INFERD_DEBUG, count
from inferd._native.nghttp2 cimport *
from inferd._native.outlet cimport Outlet
from inferd._native.stream cimport ENDING, HEADERS_COME, OPEN, UNKNOWN_ENCODING, Header, Stream

import logging

log = logging.getLogger("inferd.rpc")

cdef enum:
    MAX_FRAME_BYTES = 262144
    FIRST_OUT_BYTES = 4096
    WRITE_BYTES = 262144
    # Headers that are refused for their size are read to their end up to so many times the limit.
    HEADERS_TO_READ = 64

# What a browser, a probe or curl without --http2-prior-knowledge gets.
cdef bytes NOT_HTTP2 = (
    b"HTTP/1.1 426 Upgrade Required\r\nupgrade: h2c\r\nconnection: upgrade, close\r\ncontent-type: text/plain\r\n"
    b"content-length: 57\r\n\r\nThis port speaks gRPC, which needs HTTP/2 from the start.\n"
)

cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject** bytes, Py_ssize_t size) except -1
    # Not as objects: while its size changes nobody else may hold one.
    PyObject* new_bytes "PyBytes_FromStringAndSize" (const char* data, Py_ssize_t size) except NULL
    char* bytes_data "PyBytes_AS_STRING" (PyObject* bytes)
    char* PyByteArray_AS_STRING(object array)

cdef extern from *:
    """
    /* In 1.57 and newer, and in older ones that distributions have mended. */
    extern void nghttp2_option_set_stream_reset_rate_limit(nghttp2_option*, uint64_t, uint64_t) __attribute__((weak));

    static void inferd_set_reset_limit(nghttp2_option* option, uint64_t burst, uint64_t rate) {
        if (nghttp2_option_set_stream_reset_rate_limit) nghttp2_option_set_stream_reset_rate_limit(option, burst, rate);
    }
    """
    void set_reset_limit "inferd_set_reset_limit" (nghttp2_option* option, uint64_t burst, uint64_t rate)


# --- what the session calls ---------------------------------------------------------------------------


cdef Stream stream_of(nghttp2_session* session, int32_t stream_id):
    cdef void* found = nghttp2_session_get_stream_user_data(session, stream_id)
    return <Stream>found if found != NULL else None


cdef int on_begin_frame(nghttp2_session* session, const nghttp2_frame_hd* head, void* user_data) noexcept:
    """Count what asks for work and brings nothing; the last part of a frame's header block comes only to here."""
    cdef Connection connection = <Connection>user_data
    if head.type == NGHTTP2_HEADERS:
        connection.unpaid_frames += connection.is_paused
    elif head.type != NGHTTP2_DATA or (head.length == 0 and not head.flags & NGHTTP2_FLAG_END_STREAM):
        connection.unpaid_frames += 1
    return 0 if connection.unpaid_frames <= connection.hub.max_unpaid_frames else NGHTTP2_ERR_CALLBACK_FAILURE


cdef int on_begin_headers(nghttp2_session* session, const nghttp2_frame* frame, void* user_data) noexcept:
    if frame.hd.type != NGHTTP2_HEADERS or frame.headers.cat != NGHTTP2_HCAT_REQUEST:
        return 0
    try:
        (<Connection>user_data).open_stream(frame.hd.stream_id)
    except Exception:
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE
    return 0


cdef int on_header(
    nghttp2_session* session, const nghttp2_frame* frame, nghttp2_rcbuf* name, nghttp2_rcbuf* value,
    uint8_t flags, void* user_data,
) noexcept:
    cdef Stream stream = stream_of(session, frame.hd.stream_id)
    # Trailers of a request say nothing to gRPC.
    if stream is not None and stream.phase == HEADERS_COME:
        stream.add_header(name, value)
        if stream.header_bytes > HEADERS_TO_READ * stream.outlet.max_metadata_bytes:
            return NGHTTP2_ERR_CALLBACK_FAILURE
    return 0


cdef int on_frame(nghttp2_session* session, const nghttp2_frame* frame, void* user_data) noexcept:
    cdef Connection connection = <Connection>user_data
    cdef Stream stream
    if frame.hd.type == NGHTTP2_SETTINGS:
        connection.is_greeted = True
    elif frame.hd.type == NGHTTP2_PING and frame.hd.flags & NGHTTP2_FLAG_ACK and connection.is_leaving:
        connection.take_no_more()
    if frame.hd.type != NGHTTP2_HEADERS and frame.hd.type != NGHTTP2_DATA:
        return 0
    stream = stream_of(session, frame.hd.stream_id)
    if stream is None:
        return 0
    try:
        if stream.phase == HEADERS_COME:
            connection.begin(stream)
        if frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
            stream.half_closed = True
            if stream.phase == OPEN:
                if stream.prefix_filled:
                    stream.fail(13, b"the request ends in the middle of a message", None)
                else:
                    stream.method.half_close(stream)
    except Exception:
        connection.bug(stream)
    return 0


cdef int on_data(
    nghttp2_session* session, uint8_t flags, int32_t stream_id, const uint8_t* data, size_t size, void* user_data,
) noexcept:
    cdef Connection connection = <Connection>user_data
    cdef Stream stream = stream_of(session, stream_id)
    nghttp2_session_consume_connection(session, size)
    if stream is None:
        return 0
    try:
        stream.receive(data, size)
    except Exception:
        connection.bug(stream)
    stream.consume(size)
    return 0


cdef int on_stream_close(nghttp2_session* session, int32_t stream_id, uint32_t error, void* user_data) noexcept:
    cdef Stream stream = stream_of(session, stream_id)
    if stream is not None:
        (<Connection>user_data).close_stream(stream)
    return 0


cdef int on_frame_sent(nghttp2_session* session, const nghttp2_frame* frame, void* user_data) noexcept:
    """An answer that ends before its request: tell the client to send no more, RFC 9113 section 8.1."""
    cdef Connection connection = <Connection>user_data
    cdef Stream stream
    if frame.hd.type != NGHTTP2_HEADERS and frame.hd.type != NGHTTP2_DATA:
        return 0
    connection.unpaid_frames -= connection.unpaid_frames > 0
    if frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
        stream = stream_of(session, frame.hd.stream_id)
        if stream is not None and not stream.half_closed:
            nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame.hd.stream_id, NGHTTP2_NO_ERROR)
    return 0


cdef int on_send_data(
    nghttp2_session* session, nghttp2_frame* frame, const uint8_t* head, size_t length,
    nghttp2_data_source* source, void* user_data,
) noexcept:
    try:
        (<Stream>source.ptr).write_piece(head, length)
    except Exception:
        log.exception("This is a bug.")
        return NGHTTP2_ERR_CALLBACK_FAILURE
    return 0


# --- connections --------------------------------------------------------------------------------------


cdef nghttp2_session_callbacks* make_callbacks() except NULL:
    cdef nghttp2_session_callbacks* made
    if nghttp2_session_callbacks_new(&made):
        raise MemoryError
    nghttp2_session_callbacks_set_on_begin_frame_callback(made, on_begin_frame)
    nghttp2_session_callbacks_set_on_begin_headers_callback(made, on_begin_headers)
    nghttp2_session_callbacks_set_on_header_callback2(made, on_header)
    nghttp2_session_callbacks_set_on_frame_recv_callback(made, on_frame)
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(made, on_data)
    nghttp2_session_callbacks_set_on_stream_close_callback(made, on_stream_close)
    nghttp2_session_callbacks_set_on_frame_send_callback(made, on_frame_sent)
    nghttp2_session_callbacks_set_send_data_callback(made, on_send_data)
    return made


cdef nghttp2_option* make_options() except NULL:
    cdef nghttp2_option* made
    if nghttp2_option_new(&made):
        raise MemoryError
    # Windows open as messages are read, not as bytes come.
    nghttp2_option_set_no_auto_window_update(made, 1)
    # Its own limit on resets would close connections of clients that cancel many calls; ours is Hub.max_unpaid_frames.
    set_reset_limit(made, INT32_MAX, INT32_MAX)
    return made


# Written once, here; as good as constants.
cdef nghttp2_session_callbacks* CALLBACKS = make_callbacks()
cdef nghttp2_option* OPTIONS = make_options()


@cython.final
cdef class Connection(Outlet):
    """One client's connection: an asyncio.BufferedProtocol."""

    def __cinit__(self, Hub hub not None):
        self.hub = hub
        self.max_message_bytes, self.max_metadata_bytes = hub.max_message_bytes, hub.max_metadata_bytes
        self.window_bytes = hub.window_bytes
        if INFERD_DEBUG:
            count(CONNECTIONS, 1)

    def __dealloc__(self):
        if INFERD_DEBUG:
            count(CONNECTIONS, -1)
        if self.session != NULL:
            nghttp2_session_del(self.session)
        if self.last_path != NULL:
            nghttp2_rcbuf_decref(self.last_path)
        Py_XDECREF(self.out)

    # --- asyncio calls these --------------------------------------------------------------------------

    def connection_made(self, transport) -> None:
        """The socket is open. What settings hold is told once the client has shown that it speaks HTTP/2."""
        cdef nghttp2_settings_entry[4] settings
        self.transport, self.write = transport, transport.write
        self.peername = transport.get_extra_info("peername")
        self.opened_ns = self.received_ns = monotonic_ns()
        if nghttp2_session_server_new2(&self.session, CALLBACKS, <void*>self, OPTIONS):
            raise MemoryError
        settings[0].settings_id = NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS
        settings[0].value = self.hub.max_streams
        settings[1].settings_id = NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE
        settings[1].value = self.hub.window_bytes
        settings[2].settings_id = NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE
        settings[2].value = <uint32_t>self.hub.max_metadata_bytes
        settings[3].settings_id = NGHTTP2_SETTINGS_MAX_FRAME_SIZE
        settings[3].value = MAX_FRAME_BYTES
        nghttp2_submit_settings(self.session, NGHTTP2_FLAG_NONE, settings, 4)
        nghttp2_session_set_local_window_size(self.session, NGHTTP2_FLAG_NONE, 0, 4 * self.hub.window_bytes)
        self.hub.connections.add(self)

    def get_buffer(self, hint):
        """Where the next bytes go."""
        return self.hub.view

    def buffer_updated(self, Py_ssize_t size) -> None:
        """So many bytes have come."""
        self.receive(<uint8_t*>PyByteArray_AS_STRING(self.hub.buffer), <size_t>size)

    def data_received(self, bytes data not None) -> None:
        """The same on loops that offer get_buffer() only to subclasses of their own."""
        self.receive(<const uint8_t*>PyBytes_AS_STRING(data), <size_t>len(data))

    cdef int receive(self, const uint8_t* data, size_t size) except -1:
        cdef ssize_t read
        cdef Hub hub = self.hub
        if self.closing_ns:
            return 0
        self.received_ns = monotonic_ns()
        hub.is_busy = True
        read = nghttp2_session_mem_recv(self.session, data, size)
        hub.is_busy = False
        if read < 0:
            return self.give_up(<int>read)
        if not self.is_dirty:
            self.is_dirty = True
            hub.dirty.append(self)
        return hub.flush()

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
        self.hub.on_gone()

    def pause_writing(self) -> None:
        """The client reads too slowly: what is produced stays in the streams."""
        self.is_paused = True

    def resume_writing(self) -> None:
        """The socket takes more."""
        self.is_paused = False
        self.flush()

    # --- streams --------------------------------------------------------------------------------------

    cdef int open_stream(self, int32_t stream_id) except -1:
        cdef Stream stream = Stream()
        stream.outlet, stream.id = self, stream_id
        stream.arrived_ns = self.received_ns
        Py_INCREF(stream)
        nghttp2_session_set_stream_user_data(self.session, stream_id, <void*>stream)
        stream.next_stream = self.first_stream
        if self.first_stream != NULL:
            (<Stream>self.first_stream).prev_stream = <void*>stream
        self.first_stream = <void*>stream
        self.streams += 1
        return 0

    cdef void close_stream(self, Stream stream) noexcept:
        nghttp2_session_set_stream_user_data(self.session, stream.id, NULL)
        if stream.prev_stream != NULL:
            (<Stream>stream.prev_stream).next_stream = stream.next_stream
        else:
            self.first_stream = stream.next_stream
        if stream.next_stream != NULL:
            (<Stream>stream.next_stream).prev_stream = stream.prev_stream
        stream.next_stream = stream.prev_stream = NULL
        self.streams -= 1
        stream.close()
        Py_DECREF(stream)

    cdef list live(self):
        cdef void* at = self.first_stream
        cdef list found = []
        while at != NULL:
            found.append(<Stream>at)
            at = (<Stream>at).next_stream
        return found

    cdef int64_t expire(self, int64_t now_ns) except -1:
        cdef Stream stream
        cdef int64_t next_ns = 0
        for stream in self.live():
            if stream.deadline_ns == 0 or stream.phase == HEADERS_COME:
                continue
            if stream.deadline_ns > now_ns:
                if next_ns == 0 or stream.deadline_ns < next_ns:
                    next_ns = stream.deadline_ns
            elif stream.phase == OPEN:
                stream.fail(4, b"the deadline passed before the answer was ready", None)
                stream.method.closed(stream)
            elif stream.phase == ENDING:
                # Nobody reads the answer in time.
                stream.deadline_ns = 0
                stream.reset(NGHTTP2_CANCEL)
        return next_ns

    cdef int begin(self, Stream stream) except -1:
        """The request's headers are complete: find who answers it."""
        cdef int i
        cdef nghttp2_vec key, text
        cdef Header* header
        cdef bytes path = None
        cdef bint is_grpc = False, is_post = False
        stream.phase = OPEN
        for i in range(stream.header_count):
            header = &stream.headers[i]
            key = nghttp2_rcbuf_get_buf(header.name)
            if key.len == 5 and memcmp(key.base, b":path", 5) == 0:
                if header.value == self.last_path:
                    stream.method = self.last_method
                else:
                    text = nghttp2_rcbuf_get_buf(header.value)
                    path = (<char*>text.base)[:text.len]
                    self.look_up(stream, path, header.value)
            elif key.len == 7 and memcmp(key.base, b":method", 7) == 0:
                text = nghttp2_rcbuf_get_buf(header.value)
                is_post = text.len == 4 and memcmp(text.base, b"POST", 4) == 0
            elif key.len == 12 and memcmp(key.base, b"content-type", 12) == 0:
                text = nghttp2_rcbuf_get_buf(header.value)
                is_grpc = text.len >= 16 and memcmp(text.base, b"application/grpc", 16) == 0
        if not is_post or not is_grpc:
            return stream.refuse_http(b"415" if is_post else b"405")
        if stream.header_bytes > self.max_metadata_bytes:
            return stream.fail(8, f"the headers are larger than {self.max_metadata_bytes} bytes".encode(), None)
        if stream.method is None:
            path = dict(stream.metadata()).get(b":path", b"")
            return stream.fail(12, b"this server has no method " + path, None)
        if stream.encoding == UNKNOWN_ENCODING:
            return stream.fail(
                12, b"grpc-encoding names a compression that this server does not read",
                [(b"grpc-accept-encoding", b"identity,deflate,gzip")])
        stream.method.begin(stream)
        if stream.deadline_ns:
            self.hub.watch(stream.deadline_ns)
        return 0

    cdef int look_up(self, Stream stream, bytes path, nghttp2_rcbuf* shared) except -1:
        stream.method = self.hub.methods.get(path)
        if stream.method is None:
            stream.method = self.hub.find(path)
            return 0
        # The next call for it has the very same buffer, if the client's table of headers holds it.
        if self.last_path != NULL:
            nghttp2_rcbuf_decref(self.last_path)
        nghttp2_rcbuf_incref(shared)
        self.last_path, self.last_method = shared, stream.method
        return 0

    cdef void bug(self, Stream stream) noexcept:
        """Somebody's exception came out where none may: the call ends, and nothing of it reaches the client."""
        log.exception("This is a bug.")
        try:
            stream.fail(13, b"the server failed on this call; its log has the reason", None)
        except Exception:
            nghttp2_submit_rst_stream(self.session, NGHTTP2_FLAG_NONE, stream.id, NGHTTP2_INTERNAL_ERROR)

    # --- what goes out --------------------------------------------------------------------------------

    cdef void touch(self) noexcept:
        if not self.is_dirty:
            self.is_dirty = True
            self.hub.dirty.append(self)
            self.hub.plan()

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
                self.write(NOT_HTTP2)
        else:
            nghttp2_session_terminate_session(
                self.session,
                NGHTTP2_ENHANCE_YOUR_CALM if error == NGHTTP2_ERR_CALLBACK_FAILURE else NGHTTP2_PROTOCOL_ERROR)
            self.flush()
        self.close()
        return 0

    # --- what the server decides ----------------------------------------------------------------------

    def go_away(self) -> None:
        """Ask the client to begin no more calls, and once it has heard of it take none, RFC 9113 section 6.8."""
        if not self.is_leaving:
            self.is_leaving = True
            nghttp2_submit_shutdown_notice(self.session)
            nghttp2_submit_ping(self.session, NGHTTP2_FLAG_NONE, NULL)
            self.touch()

    def take_no_more(self) -> None:
        """Take no more calls; the connection closes after the last of those under way."""
        nghttp2_submit_goaway(
            self.session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(self.session),
            NGHTTP2_NO_ERROR, NULL, 0)
        self.touch()

    def terminate(self, uint32_t error) -> None:
        """GOAWAY with an error, cut every call, close."""
        nghttp2_session_terminate_session(self.session, error)
        self.touch()

    def cut(self, bytes text not None) -> None:
        """End every call with UNAVAILABLE, and close."""
        cdef Stream stream
        for stream in self.live():
            if stream.phase == OPEN:
                stream.fail(14, text, None)
                stream.method.closed(stream)
        self.flush()
        self.terminate(NGHTTP2_NO_ERROR)

    def ping(self) -> None:
        """Ask whether anybody is there."""
        nghttp2_submit_ping(self.session, NGHTTP2_FLAG_NONE, NULL)
        self.touch()

    def close(self) -> None:
        """Close once everything written has left."""
        self.closing_ns = self.closing_ns or monotonic_ns()
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Close now."""
        self.closing_ns = self.closing_ns or monotonic_ns()
        if self.transport is not None:
            self.transport.abort()
