"""One HTTP/2 session of a server: see session.pxd."""

from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint8_t, uint32_t
from libc.string cimport memcmp

from inferd._native.header cimport UNKNOWN_ENCODING
from inferd._native.headers cimport Header, headers_at, shared_bytes
from inferd._native.hub cimport Hub
from inferd._native.inlet cimport Inlet
from inferd._native.live cimport CONNECTIONS, INFERD_DEBUG, count
from inferd._native.nghttp2 cimport *
from inferd._native.options cimport server_options
from inferd._native.stranger cimport refuse_stranger
from inferd._native.stream cimport ENDING, HEADERS_COME, OPEN, Stream

import logging

log = logging.getLogger("inferd.rpc")

cdef enum:
    MAX_FRAME_BYTES = 262144
    # Headers that are refused for their size are read to their end up to so many times the limit.
    HEADERS_TO_READ = 64

# What the ping says that follows a first GOAWAY, so that its answer is told from that to a keepalive's.
cdef const uint8_t* LEAVING = <const uint8_t*>b"leaving!"

# --- what the session calls ---------------------------------------------------------------------------


cdef Stream stream_of(nghttp2_session* session, int32_t stream_id):
    cdef void* found = nghttp2_session_get_stream_user_data(session, stream_id)
    return <Stream>found if found != NULL else None


cdef int on_begin_frame(nghttp2_session* session, const nghttp2_frame_hd* head, void* user_data) noexcept:
    """Count what asks for work and brings nothing; the last part of a frame's header block comes only to here."""
    cdef Session connection = <Session>user_data
    connection.frame_left = 0
    if head.type == NGHTTP2_DATA:
        connection.frame_stream_id, connection.frame_bytes = head.stream_id, head.length
        if not head.flags & NGHTTP2_FLAG_PADDED:
            connection.frame_left = head.length
    if head.type == NGHTTP2_HEADERS:
        connection.unpaid_frames += connection.is_paused or connection.streams >= <int64_t>connection.hub.max_streams
        if head.stream_id > connection.last_stream_id:
            connection.skipped_from, connection.last_stream_id = connection.last_stream_id + 1, head.stream_id
        elif connection.skipped_from <= head.stream_id < connection.last_stream_id:
            # nghttp2 would let it pass, as it must what comes late for a stream that there has been.
            nghttp2_session_terminate_session(session, NGHTTP2_PROTOCOL_ERROR)
    elif head.type != NGHTTP2_DATA or (head.length == 0 and not head.flags & NGHTTP2_FLAG_END_STREAM):
        connection.unpaid_frames += 1
    return 0 if connection.unpaid_frames <= connection.hub.max_unpaid_frames else NGHTTP2_ERR_CALLBACK_FAILURE


cdef int on_begin_headers(nghttp2_session* session, const nghttp2_frame* frame, void* user_data) noexcept:
    if frame.hd.type != NGHTTP2_HEADERS or frame.headers.cat != NGHTTP2_HCAT_REQUEST:
        return 0
    try:
        (<Session>user_data).open_stream(frame.hd.stream_id)
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
    cdef Session connection = <Session>user_data
    cdef Stream stream
    if frame.hd.type == NGHTTP2_SETTINGS:
        if frame.hd.flags & NGHTTP2_FLAG_ACK:
            connection.is_greeted = connection.has_settings
            if connection.holds_back:
                connection.let_all_come()
        else:
            connection.has_settings = True
    elif frame.hd.type == NGHTTP2_PING and frame.hd.flags & NGHTTP2_FLAG_ACK:
        if memcmp(frame.ping.opaque_data, LEAVING, 8) == 0:
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
                    stream.cut(13, b"the request ends in the middle of a message")
                else:
                    stream.method.half_close(stream)
    except Exception:
        connection.bug(stream)
    return 0


cdef int on_data(
    nghttp2_session* session, uint8_t flags, int32_t stream_id, const uint8_t* data, size_t size, void* user_data,
) noexcept:
    cdef Session connection = <Session>user_data
    cdef Stream stream = stream_of(session, stream_id)
    connection.frame_left -= min(size, connection.frame_left)
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
        (<Session>user_data).close_stream(stream)
    return 0


cdef int on_frame_sent(nghttp2_session* session, const nghttp2_frame* frame, void* user_data) noexcept:
    """Follow up a first GOAWAY, and an answer that ends before its request."""
    cdef Session connection = <Session>user_data
    cdef Stream stream
    if frame.hd.type == NGHTTP2_GOAWAY and frame.goaway.last_stream_id == INT32_MAX:
        # Its answer shows that the client has heard. Submitted earlier it would overtake the GOAWAY.
        nghttp2_submit_ping(session, NGHTTP2_FLAG_NONE, LEAVING)
    if frame.hd.type != NGHTTP2_HEADERS and frame.hd.type != NGHTTP2_DATA:
        return 0
    connection.unpaid_frames -= connection.unpaid_frames > 0
    if frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
        stream = stream_of(session, frame.hd.stream_id)
        if stream is not None and not stream.half_closed:
            # The client is to send no more, RFC 9113 section 8.1.
            nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame.hd.stream_id, NGHTTP2_NO_ERROR)
    return 0


cdef ssize_t frame_size(
    nghttp2_session* session, uint8_t frame_type, int32_t stream_id, int32_t session_window, int32_t stream_window,
    uint32_t max_frame_bytes, void* user_data,
) noexcept:
    """DATA frames as large as the client takes them, up to our own bound; the library's habit is 16 KB."""
    return min(max_frame_bytes, <uint32_t>MAX_FRAME_BYTES)


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


# --- sessions -----------------------------------------------------------------------------------------


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
    nghttp2_session_callbacks_set_data_source_read_length_callback(made, frame_size)
    return made


# Written once, here; as good as constants.
cdef nghttp2_session_callbacks* CALLBACKS = make_callbacks()
cdef nghttp2_option* OPTIONS = server_options()


cdef class Session(Inlet):
    """The HTTP/2 half of a connection: its session, its streams, and which method answers each."""

    def __cinit__(self, Hub hub not None):
        self.hub = hub
        self.max_message_bytes, self.max_metadata_bytes = hub.max_message_bytes, hub.max_metadata_bytes
        self.window_bytes, self.heeds_traces = hub.window_bytes, hub.heeds_traces
        if INFERD_DEBUG:
            count(CONNECTIONS, 1)

    def __dealloc__(self):
        if INFERD_DEBUG:
            count(CONNECTIONS, -1)
        if self.session != NULL:
            nghttp2_session_del(self.session)
        if self.last_path != NULL:
            nghttp2_rcbuf_decref(self.last_path)

    cdef int open(self) except -1:
        """Say which settings hold; it is sent with the first flush."""
        cdef nghttp2_settings_entry[4] settings
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
        return 0

    cdef void touch(self) noexcept:
        if not self.is_dirty:
            self.is_dirty = True
            self.hub.dirty.append(self)
            self.hub.plan()

    # --- streams --------------------------------------------------------------------------------------

    cdef int open_stream(self, int32_t stream_id) except -1:
        cdef Stream stream = Stream()
        stream.outlet, stream.id = self, stream_id
        stream.arrived_ns = self.headers_since_ns = self.received_ns
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

    cdef Stream filling(self):
        """The stream whose message the next bytes are a part of, None if that is not known."""
        cdef Stream stream
        if self.frame_left == 0:
            return None
        stream = stream_of(self.session, self.frame_stream_id)
        return stream if stream is not None and stream.phase == OPEN and stream.incoming is not None else None

    cdef list live(self):
        cdef void* at = self.first_stream
        cdef list found = []
        while at != NULL:
            found.append(<Stream>at)
            at = (<Stream>at).next_stream
        return found

    cdef int watch(self, int64_t deadline_ns) except -1:
        return self.hub.watch(deadline_ns)

    cdef bint is_too_much(self, size_t size) noexcept:
        return self.hub.is_too_much(size)

    cdef int let_all_come(self) except -1:
        """The client has taken the smaller windows, with them those of messages that may come whole."""
        cdef Stream stream
        for stream in self.live():
            if stream.incoming is not None:
                self.let_come(stream.id)
        return 0

    cdef int64_t expire(self, int64_t now_ns) except -1:
        cdef Stream stream
        cdef int64_t due_ns, next_ns = 0
        for stream in self.live():
            due_ns = stream.answer_by_ns if stream.answer_by_ns and stream.phase == OPEN else stream.deadline_ns
            if due_ns == 0 or stream.phase == HEADERS_COME:
                continue
            if due_ns > now_ns:
                if next_ns == 0 or due_ns < next_ns:
                    next_ns = due_ns
            elif stream.phase == OPEN:
                stream.cut(
                    4, b"the message was not here in time (its deadline, or admission.message_timeout_ms)"
                    if stream.incoming is not None else b"the deadline passed before the answer was ready")
            elif stream.phase == ENDING:
                # Nobody reads the answer in time.
                stream.deadline_ns = 0
                stream.reset(NGHTTP2_CANCEL)
        return next_ns

    cdef int begin(self, Stream stream) except -1:
        """The request's headers are complete: find who answers it."""
        cdef int i
        cdef nghttp2_vec key, text
        cdef Header* at = headers_at(&stream.headers)
        cdef bytes path = None
        cdef bint is_grpc = False, is_post = False, is_head = False
        stream.phase = OPEN
        self.headers_since_ns = 0
        for i in range(stream.headers.count):
            key = nghttp2_rcbuf_get_buf(at[i].name)
            if key.len == 5 and memcmp(key.base, b":path", 5) == 0:
                if at[i].value == self.last_path:
                    stream.method = self.last_method
                else:
                    path = shared_bytes(at[i].value)
                    self.look_up(stream, path, at[i].value)
            elif key.len == 7 and memcmp(key.base, b":method", 7) == 0:
                text = nghttp2_rcbuf_get_buf(at[i].value)
                is_post = text.len == 4 and memcmp(text.base, b"POST", 4) == 0
                is_head = text.len == 4 and memcmp(text.base, b"HEAD", 4) == 0
            elif key.len == 12 and memcmp(key.base, b"content-type", 12) == 0:
                text = nghttp2_rcbuf_get_buf(at[i].value)
                is_grpc = text.len >= 16 and memcmp(text.base, b"application/grpc", 16) == 0
        if not is_post or not is_grpc:
            return refuse_stranger(stream, b"415" if is_post else b"405", is_head)
        if stream.header_bytes > self.max_metadata_bytes:
            return stream.fail(8, f"the headers are larger than {self.max_metadata_bytes} bytes".encode(), None)
        if self.hub.guard is not None and not self.hub.guard.admits(stream):
            return 0
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
            stream.cut(13, b"the server failed on this call; its log has the reason")
        except Exception:
            nghttp2_submit_rst_stream(self.session, NGHTTP2_FLAG_NONE, stream.id, NGHTTP2_INTERNAL_ERROR)

    # --- what the server decides ----------------------------------------------------------------------

    def ping(self) -> None:
        """Have the client show that it is there: its answer sets received_ns."""
        nghttp2_submit_ping(self.session, NGHTTP2_FLAG_NONE, NULL)
        self.touch()

    def go_away(self) -> None:
        """Ask the client to begin no more calls, and once it has heard of it take none, RFC 9113 section 6.8."""
        if not self.is_leaving:
            self.is_leaving = True
            nghttp2_submit_shutdown_notice(self.session)
            self.touch()

    def take_no_more(self) -> None:
        """Take no more calls; the connection closes after the last of those under way."""
        if self.has_left:
            return
        self.has_left = True
        nghttp2_submit_goaway(self.session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(self.session),
                              NGHTTP2_NO_ERROR, NULL, 0)
        self.touch()
        self.hub.on_left()

    def terminate(self, uint32_t error) -> None:
        """GOAWAY with an error, cut every call, close."""
        nghttp2_session_terminate_session(self.session, error)
        self.touch()

    def cut(self, bytes text not None) -> None:
        """End every call with UNAVAILABLE, and close."""
        cdef Stream stream
        for stream in self.live():
            if stream.phase == OPEN:
                stream.cut(14, text)
        self.flush()
        self.terminate(NGHTTP2_NO_ERROR)
