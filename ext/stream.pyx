"""gRPC over one HTTP/2 stream, the server's side: see stream.pxd.

Framing, headers and statuses follow grpc/grpc doc/PROTOCOL-HTTP2.md.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.string cimport memcmp, memcpy, memmove

from inferd._native.header cimport DEFLATE, GZIP, IDENTITY, borrowed, copied, encoding_of, percent_encoded, timeout_ns
from inferd._native.headers cimport Header, headers_add, headers_at, headers_free, shared_bytes
from inferd._native.live cimport INFERD_DEBUG, STREAMS, count as count_live
from inferd._native.nghttp2 cimport *

cdef enum:
    MAX_TRAILERS = 64
    HEADER_OVERHEAD = 32  # what one costs beside its own bytes, RFC 9113 section 6.5.2

cdef list PUSHBACK = [(b"grpc-retry-pushback-ms", b"1000")]  # gRFC A6
# Kept, because a header's bytes must live until it is submitted.
cdef tuple STATUSES = tuple([b"%d" % number for number in range(17)])


cdef class Method:
    """What answers the calls of one path."""

    cdef int begin(self, Stream stream) except -1:
        """The request's headers have come."""
        return 0

    cdef bint coming(self, Stream stream, size_t size, const uint8_t* begun, size_t here) except -1:
        """A message has begun to come that is not all here: of `size` bytes, the first `here` of them.

        False if it was refused, which is the call's end: then no more of it is kept.
        """
        return True

    cdef int message(self, Stream stream, bytes body, bint compressed) except -1:
        """One whole message has come."""
        return 0

    cdef int half_close(self, Stream stream) except -1:
        """The client will send no more messages."""
        return 0

    cdef void sent(self, Stream stream) noexcept:
        """A message has left for the connection."""

    cdef void closed(self, Stream stream) noexcept:
        """The stream is gone, by its own end or because somebody cut it."""


cdef ssize_t read_outgoing(
    nghttp2_session* session, int32_t stream_id, uint8_t* buffer, size_t length,
    uint32_t* flags, nghttp2_data_source* source, void* user_data,
) noexcept:
    return (<Stream>source.ptr).next_piece(length, flags)


@cython.final
@cython.freelist(256)
cdef class Stream:
    """One call: what came, what goes out, and how far either is."""

    def __cinit__(self):
        self.code = -1
        if INFERD_DEBUG:
            count_live(STREAMS, 1)

    def __dealloc__(self):
        if INFERD_DEBUG:
            count_live(STREAMS, -1)
        headers_free(&self.headers)

    # --- what comes in -----------------------------------------------------------------------------

    cdef int add_header(self, nghttp2_rcbuf* name, nghttp2_rcbuf* value) noexcept:
        """Keep a header. Not 0 if there is no memory or if they are too many; those then go uncounted."""
        cdef nghttp2_vec key = nghttp2_rcbuf_get_buf(name)
        cdef nghttp2_vec text = nghttp2_rcbuf_get_buf(value)
        cdef int64_t after_ns
        self.header_bytes += key.len + text.len + HEADER_OVERHEAD
        if self.header_bytes > self.outlet.max_metadata_bytes or headers_add(&self.headers, name, value):
            return -1
        if key.len == 12 and memcmp(key.base, b"grpc-timeout", 12) == 0:
            after_ns = timeout_ns(text.base, text.len)
            # One that cannot be read is no deadline, as in gRPC's own servers.
            self.deadline_ns = self.arrived_ns + after_ns if after_ns >= 0 else 0
        elif key.len == 13 and memcmp(key.base, b"grpc-encoding", 13) == 0:
            self.encoding = encoding_of(text.base, text.len)
        elif key.len == 11 and self.outlet.heeds_traces and memcmp(key.base, b"traceparent", 11) == 0:
            self.trace_parent = self.headers.count if self.trace_parent == 0 else -1
        return 0

    cdef int receive(self, const uint8_t* data, size_t size) except -1:
        """Take a piece of the client's DATA, handing on every message that it completes."""
        cdef size_t part
        cdef bytes whole
        cdef uint8_t* at
        while size:
            if self.phase != OPEN:
                return 0  # nobody reads it any more
            if self.incoming is None:
                while self.prefix_filled < PREFIX_BYTES and size:
                    self.prefix[self.prefix_filled] = data[0]
                    self.prefix_filled += 1
                    data += 1
                    size -= 1
                if self.prefix_filled < PREFIX_BYTES:
                    return 0
                if not self.start_message(data, size):
                    return 0
            part = min(size, self.wanted - self.filled)
            at = <uint8_t*>PyBytes_AS_STRING(self.incoming) + self.filled
            # Read from the socket to where it belongs, it is there already.
            if data != at:
                memcpy(at, data, part)
            self.filled += part
            data += part
            size -= part
            if self.filled == self.wanted:
                whole, self.incoming = self.incoming, None
                self.prefix_filled = 0
                self.unread_bytes += self.wanted + PREFIX_BYTES
                self.method.message(self, whole, self.prefix[0] == 1)
        return 0

    cdef bint start_message(self, const uint8_t* begun, size_t here) except -1:
        """Make room for the message that the prefix announces. False if it is refused.

        Of what follows the prefix the first `here` bytes have come.
        """
        self.wanted = <size_t>self.prefix[1] << 24 | self.prefix[2] << 16 | self.prefix[3] << 8 | self.prefix[4]
        self.filled = 0
        if self.prefix[0] > 1:
            self.cut(13, b"a message's compressed flag is neither 0 nor 1")
        elif self.prefix[0] == 1 and self.encoding == IDENTITY:
            self.cut(13, b"a message is compressed, but grpc-encoding names no way to read it")
        elif self.wanted > self.outlet.max_message_bytes:
            self.cut(
                8,
                f"a message of {self.wanted} bytes is larger than the {self.outlet.max_message_bytes} that this "
                "server takes (grpc.max_message_bytes)".encode(),
            )
        elif self.outlet.is_too_much(self.wanted):
            self.fail(8, b"the server is short of memory (admission.memory_share); try again later", PUSHBACK)
            self.method.closed(self)
            self.outlet.hold_back()
        elif here < self.wanted and not self.method.coming(self, self.wanted, begun, here):
            self.outlet.hold_back()
        else:
            if here < self.wanted:
                self.outlet.let_come(self.id)
            self.incoming = PyBytes_FromStringAndSize(NULL, self.wanted)
            return True
        return False

    def metadata(self) -> list[tuple[bytes, bytes]]:
        """The request's headers in their order, names in lower case, pseudo-headers among them."""
        cdef int i
        cdef Header* at = headers_at(&self.headers)
        return [(shared_bytes(at[i].name), shared_bytes(at[i].value)) for i in range(self.headers.count)]

    cdef void consume(self, size_t size) noexcept:
        """Give received bytes back to the client's window, or hold them while too much waits to be read."""
        if self.outlet is None:
            return
        if self.unread_bytes > self.outlet.window_bytes:
            self.held_bytes += size
            return
        nghttp2_session_consume_stream(self.outlet.session, self.id, size + self.held_bytes)
        self.held_bytes = 0

    cpdef void taken(self, size_t size) noexcept:
        """A message of this size was read: if that was what the client waited for, let it go on."""
        self.unread_bytes -= min(size + PREFIX_BYTES, self.unread_bytes)
        if self.held_bytes:
            self.consume(0)
            if self.outlet is not None:
                self.outlet.touch()

    # --- what goes out -----------------------------------------------------------------------------

    cdef int submit(self, nghttp2_nv* headers, size_t count, bint is_all) except -1:
        """Send the response's headers, with DATA to follow unless they are all of it."""
        cdef nghttp2_data_provider body
        body.source.ptr = <void*>self
        body.read_callback = read_outgoing
        self.head_sent = True
        if nghttp2_submit_response(self.outlet.session, self.id, headers, count, NULL if is_all else &body):
            raise MemoryError
        self.outlet.touch()
        return 0

    cdef int submit_head(self, list more) except -1:
        """Send the headers of a response that has messages."""
        cdef nghttp2_nv[MAX_TRAILERS] headers
        cdef size_t count = 2
        headers[0] = borrowed(b":status", 7, b"200", 3)
        headers[1] = borrowed(b"content-type", 12, b"application/grpc", 16)
        for name, value in more or ():
            if count == MAX_TRAILERS:
                break
            headers[count] = copied(name, value)
            count += 1
        return self.submit(headers, count, False)

    cdef int resume(self) except -1:
        if self.deferred:
            self.deferred = False
            nghttp2_session_resume_data(self.outlet.session, self.id)
        self.outlet.touch()
        return 0

    cdef int push(self, bytes body, bint compressed) except -1:
        """Queue a message of the response, unless the call has ended."""
        if self.phase != OPEN:
            return 0
        if self.outgoing is None:
            self.outgoing = []
        self.outgoing.append((body, compressed))
        self.unsent_bytes += <size_t>len(body)
        return self.resume() if self.head_sent else self.submit_head(None)

    cdef int answer(self, bytes body, bytes encoding) except -1:
        """The one message of a unary answer, and OK. `encoding` is how it was compressed, None if it was not."""
        if self.phase != OPEN:
            return 0
        self.current, self.current_sent, self.current_compressed = body, 0, encoding is not None
        self.unsent_bytes = <size_t>len(body)
        self.phase, self.code = ENDING, 0
        if not self.head_sent:
            self.submit_head(None if encoding is None else [(b"grpc-encoding", encoding)])
        else:
            self.resume()
        return 0

    cdef int fail(self, int code, bytes text, list trailers) except -1:
        """End with a status other than what was planned; messages that have not left yet are dropped."""
        if self.phase >= ENDING:
            return 0
        self.outgoing, self.incoming = None, None
        if self.current_sent == 0:
            self.current = None
        # A message that has begun to leave must leave whole: trailers cannot follow half of one.
        self.unsent_bytes = 0 if self.current is None else <size_t>len(self.current)
        return self.end(code, text, trailers)

    cdef int cut(self, int code, bytes text) except -1:
        """End a call, and tell who answers it that nobody waits any more."""
        self.fail(code, text, None)
        if self.method is not None:
            self.method.closed(self)
        return 0

    cdef int end(self, int code, bytes text, list trailers) except -1:
        cdef nghttp2_nv[MAX_TRAILERS] headers
        self.phase, self.code, self.text, self.trailers = ENDING, code, percent_encoded(text), trailers
        if self.head_sent:
            return self.resume()
        # Trailers-only: one HEADERS frame says it all.
        headers[0] = borrowed(b":status", 7, b"200", 3)
        headers[1] = borrowed(b"content-type", 12, b"application/grpc", 16)
        return self.submit(headers, 2 + self.write_status(headers + 2), True)

    cdef size_t write_status(self, nghttp2_nv* headers) except 0:
        """grpc-status, grpc-message and trailing metadata; at most MAX_TRAILERS - 2 of them."""
        cdef size_t count = 1
        if self.code == 0:
            headers[0] = borrowed(b"grpc-status", 11, b"0", 1)
        else:
            headers[0] = copied(b"grpc-status", STATUSES[self.code])
        if self.text:
            headers[1] = copied(b"grpc-message", self.text)
            count = 2
        for name, value in self.trailers or ():
            if count == MAX_TRAILERS - 2:
                break
            headers[count] = copied(name, value)
            count += 1
        return count

    cdef int submit_trailers(self) noexcept:
        """Have the status follow the last message. 0, or what a callback returns to have the stream reset."""
        cdef nghttp2_nv[MAX_TRAILERS] trailers
        try:
            nghttp2_submit_trailer(self.outlet.session, self.id, trailers, self.write_status(trailers))
        except Exception:
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE
        return 0

    cdef ssize_t next_piece(self, size_t length, uint32_t* flags) noexcept:
        """How much of the current message goes into a DATA frame of at most `length`, or that nothing does yet."""
        cdef size_t left
        if self.current is None and self.outgoing:
            self.current, self.current_compressed = self.outgoing.pop(0)
            self.current_sent = 0
        if self.current is None:
            if self.phase != ENDING:
                self.deferred = True
                return NGHTTP2_ERR_DEFERRED
            flags[0] |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM | NGHTTP2_DATA_FLAG_NO_COPY
            return self.submit_trailers()
        left = PREFIX_BYTES + <size_t>len(self.current) - self.current_sent
        flags[0] |= NGHTTP2_DATA_FLAG_NO_COPY
        if left > length:
            return <ssize_t>length
        if self.phase == ENDING and not self.outgoing:
            # The last piece and the trailers are submitted together: no empty DATA frame between them.
            flags[0] |= NGHTTP2_DATA_FLAG_EOF
            if self.code < 0:
                return <ssize_t>left  # what is no answer of gRPC ends here
            flags[0] |= NGHTTP2_DATA_FLAG_NO_END_STREAM
            if self.submit_trailers():
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE
        return <ssize_t>left

    cdef int write_piece(self, const uint8_t* head, size_t length) except -1:
        """Put a DATA frame of `length` bytes of the current message to the outlet; `head` is the frame's."""
        cdef uint8_t[9 + PREFIX_BYTES] start
        cdef uint32_t size
        cdef size_t part
        if length == 0:
            return self.outlet.put(head, 9)
        memcpy(start, head, 9)
        if self.current_sent < PREFIX_BYTES:
            size = <uint32_t>len(self.current)
            start[9] = 1 if self.current_compressed else 0
            start[10], start[11] = size >> 24 & 255, size >> 16 & 255
            start[12], start[13] = size >> 8 & 255, size & 255
            part = min(length, PREFIX_BYTES - self.current_sent)
            memmove(start + 9, start + 9 + self.current_sent, part)  # what is left of the prefix
            self.outlet.put(start, 9 + part)
            self.current_sent += part
            length -= part
        else:
            self.outlet.put(head, 9)
        if length:
            self.outlet.lend(self.current, self.current_sent - PREFIX_BYTES, length)
            self.current_sent += length
            self.unsent_bytes -= min(length, self.unsent_bytes)
        if self.current_sent == PREFIX_BYTES + <size_t>len(self.current):
            self.current = None
            if self.method is not None:
                self.method.sent(self)
        return 0

    # --- the same for Python -----------------------------------------------------------------------

    @property
    def connection(self) -> Outlet | None:
        """What the stream is part of; None once it is gone."""
        return self.outlet

    @property
    def compression(self) -> str:
        """How messages are compressed that say they are."""
        return "gzip" if self.encoding == GZIP else "deflate" if self.encoding == DEFLATE else "identity"

    @property
    def is_open(self) -> bool:
        """Whether a status can still be given."""
        return self.phase == OPEN

    @property
    def is_closed(self) -> bool:
        """Whether the HTTP/2 stream is gone."""
        return self.phase == CLOSED

    @property
    def is_started(self) -> bool:
        """Whether the response's headers are on their way."""
        return self.head_sent

    def start(self, list metadata not None) -> None:
        """Send the response's headers with this initial metadata, once; later calls do nothing."""
        if self.phase == OPEN and not self.head_sent:
            self.submit_head(metadata)

    def send(self, bytes body not None, bint compressed=False) -> None:
        """Queue a message of the response. Nothing happens once the call has ended."""
        self.push(body, compressed)

    def finish(self, int code, bytes text not None, list trailers not None) -> None:
        """Give the status; with OK what is queued goes out first, otherwise it is dropped. Only the first one counts."""
        if not 0 <= code < len(STATUSES):
            raise ValueError(f"{code} is no status of gRPC")
        if self.phase != OPEN:
            return
        if code == 0:
            self.end(code, text, trailers)
        else:
            self.fail(code, text, trailers)

    def reset(self, uint32_t error) -> None:
        """Cut the stream with an HTTP/2 error code, without a status."""
        if self.outlet is not None:
            nghttp2_submit_rst_stream(self.outlet.session, NGHTTP2_FLAG_NONE, self.id, error)
            self.outlet.touch()

    cdef void close(self) noexcept:
        """The HTTP/2 stream is gone."""
        self.phase, self.outlet = CLOSED, None
        self.incoming = self.current = self.outgoing = None
        if self.method is not None:
            self.method.closed(self)
        self.call = self.owner = self.caller = self.permit = None
