"""HTTP/2 and gRPC as a client speaks them: calls out, statuses and answers in. See client.pxd for who owns what.

Statuses follow grpc/grpc doc/PROTOCOL-HTTP2.md and doc/http-grpc-status-mapping.md.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy
from posix.unistd cimport close

from inferd._native.nghttp2 cimport *

cdef enum:
    # As large as the protocol allows, so that the measured server never waits for our window.
    WINDOW = 0x7FFFFFFF
    # One write to the socket takes at least so much, if there is so much.
    WRITE_BYTES = 65536

cdef extern from *:
    """
    #include <errno.h>
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <sys/socket.h>

    /* A socket on its way to the address, or -1. */
    static int inferd_connect(const void* address, unsigned int size) {
        const struct sockaddr* to = (const struct sockaddr*)address;
        int yes = 1, made = socket(to->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (made < 0) return -1;
        if (to->sa_family != AF_UNIX) setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        if (connect(made, to, size) < 0 && errno != EINPROGRESS && errno != EAGAIN) {
            close(made);
            return -1;
        }
        return made;
    }

    static int inferd_socket_error(int socket) {
        int failure = 0;
        socklen_t size = sizeof failure;
        return getsockopt(socket, SOL_SOCKET, SO_ERROR, &failure, &size) < 0 ? errno : failure;
    }
    """
    int open_socket "inferd_connect" (const void* address, unsigned int size) noexcept nogil
    int socket_error "inferd_socket_error" (int socket) noexcept nogil

cdef extern from "sys/socket.h" nogil:
    enum:
        MSG_NOSIGNAL
    ssize_t c_send "send" (int socket, const void* data, size_t size, int flags)
    ssize_t c_recv "recv" (int socket, void* data, size_t size, int flags)


# --- one call ---------------------------------------------------------------------------------------


cdef void say(Call* call, const char* text, int number) noexcept nogil:
    # The server's own words are better than ours.
    if call.text_size == 0:
        call.text_size = min(snprintf(call.text, TEXT_BYTES, text, number), TEXT_BYTES - 1)


cdef int code_of_http(int status) noexcept nogil:
    if status == 400:
        return INTERNAL
    if status == 401:
        return UNAUTHENTICATED
    if status == 403:
        return PERMISSION_DENIED
    if status == 404:
        return UNIMPLEMENTED
    if status == 429 or 502 <= status <= 504:
        return UNAVAILABLE
    return UNKNOWN


cdef int code_of_reset(uint32_t error) noexcept nogil:
    if error == NGHTTP2_REFUSED_STREAM:
        return UNAVAILABLE
    if error == NGHTTP2_CANCEL:
        return CANCELLED
    if error == NGHTTP2_ENHANCE_YOUR_CALM:
        return RESOURCE_EXHAUSTED
    if error == NGHTTP2_INADEQUATE_SECURITY:
        return PERMISSION_DENIED
    return INTERNAL


cdef size_t promised(const Call* call) noexcept nogil:
    """Size of the answer's message as its prefix says, the prefix included."""
    return PREFIX_BYTES + (
        <size_t>call.prefix[1] << 24 | <size_t>call.prefix[2] << 16 | <size_t>call.prefix[3] << 8 | call.prefix[4]
    )


cdef void judge(const Script* script, Call* call, uint32_t error) noexcept nogil:
    """Give a call whose stream has closed its code, and a text if it is not OK."""
    if not script.grpc and call.http_status == 200 and error == NGHTTP2_NO_ERROR:
        call.code = OK
    elif call.code == NO_CODE and call.http_status and call.http_status != 200:
        call.code = code_of_http(call.http_status)
        say(call, b"HTTP status %d", call.http_status)
    elif call.code == NO_CODE and error != NGHTTP2_NO_ERROR:
        call.refused = error == NGHTTP2_REFUSED_STREAM and call.http_status == 0
        call.code = code_of_reset(error)
        say(call, b"the stream was reset with HTTP/2 error code %d", <int>error)
    elif call.code == NO_CODE:
        call.code = UNKNOWN
        say(call, b"the answer has no grpc-status", 0)
    elif call.code == OK and (call.received < PREFIX_BYTES or call.received != promised(call)):
        call.code = INTERNAL
        say(call, b"the answer is not one whole message", 0)


cdef void unlink(Connection* connection, Call* call) noexcept nogil:
    if call.previous == NULL:
        connection.first = call.next
    else:
        call.previous.next = call.next
    if call.next == NULL:
        connection.last = call.previous
    else:
        call.next.previous = call.previous
    call.next = call.previous = NULL
    connection.calls -= 1


cdef bint keep(const Script* script, Call* call, const uint8_t* data, size_t size) noexcept nogil:
    """Take a piece of the answer. False if there is no memory for it."""
    cdef size_t wanted, part
    cdef uint8_t* larger
    if call.received < PREFIX_BYTES:
        part = min(size, PREFIX_BYTES - call.received)
        memcpy(call.prefix + call.received, data, part)
    if script.keep_answers:
        wanted = call.received + size
        if wanted > call.answer_capacity:
            wanted = max(wanted, 2 * call.answer_capacity)
            larger = <uint8_t*>realloc(call.answer, wanted)
            if larger == NULL:
                return False
            call.answer = larger
            call.answer_capacity = wanted
        memcpy(call.answer + call.received, data, size)
    call.received += size
    return True


# --- what the session calls -------------------------------------------------------------------------


cdef ssize_t read_body(
    nghttp2_session* session, int32_t stream, uint8_t* buffer, size_t length,
    uint32_t* flags, nghttp2_data_source* source, void* user_data,
) noexcept nogil:
    cdef Call* call = <Call*>source.ptr
    cdef const Body* body = &(<Connection*>user_data).script.bodies[call.request]
    cdef size_t size = min(length, body.size - call.body_sent)
    memcpy(buffer, body.data + call.body_sent, size)
    call.body_sent += size
    if call.body_sent == body.size:
        flags[0] |= NGHTTP2_DATA_FLAG_EOF
    return <ssize_t>size


cdef ssize_t frame_bytes(
    nghttp2_session* session, uint8_t frame_type, int32_t stream, int32_t session_window, int32_t stream_window,
    uint32_t max_frame_bytes, void* user_data,
) noexcept nogil:
    """As large as the server takes them, which is what gRPC's own clients send; the library's habit is 16 KB."""
    return <ssize_t>max_frame_bytes


cdef int number(const uint8_t* text, size_t size) noexcept nogil:
    """A short decimal number, or -1."""
    cdef size_t i
    cdef int value = 0
    if size == 0 or size > 3:
        return -1
    for i in range(size):
        if not 48 <= text[i] <= 57:
            return -1
        value = value * 10 + text[i] - 48
    return value


cdef int on_header(
    nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
    const uint8_t* value, size_t value_size, uint8_t flags, void* user_data,
) noexcept nogil:
    cdef Call* call = <Call*>nghttp2_session_get_stream_user_data(session, frame.hd.stream_id)
    if call == NULL:
        return 0
    if name_size == 7 and memcmp(name, b":status", 7) == 0:
        call.http_status = number(value, value_size)
    elif name_size == 11 and memcmp(name, b"grpc-status", 11) == 0:
        call.code = number(value, value_size)
        if not 0 <= call.code < CODES:
            call.code = UNKNOWN
    elif name_size == 12 and memcmp(name, b"grpc-message", 12) == 0:
        call.text_size = <int>min(value_size, <size_t>(TEXT_BYTES - 1))
        memcpy(call.text, value, call.text_size)
    return 0


cdef int on_data(
    nghttp2_session* session, uint8_t flags, int32_t stream, const uint8_t* data, size_t size, void* user_data,
) noexcept nogil:
    cdef Connection* connection = <Connection*>user_data
    cdef Call* call = <Call*>nghttp2_session_get_stream_user_data(session, stream)
    if call != NULL and not keep(connection.script, call, data, size):
        say(call, b"no memory for the answer", 0)
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream, NGHTTP2_CANCEL)
    return 0


cdef int on_close(nghttp2_session* session, int32_t stream, uint32_t error, void* user_data) noexcept nogil:
    cdef Connection* connection = <Connection*>user_data
    cdef Call* call = <Call*>nghttp2_session_get_stream_user_data(session, stream)
    if call != NULL:
        unlink(connection, call)
        judge(connection.script, call, error)
        connection.script.ended(connection.script.owner, call)
    return 0


cdef int callbacks_new(nghttp2_session_callbacks** callbacks) noexcept nogil:
    """What a Script needs; to be freed with nghttp2_session_callbacks_del. Not 0 if there is no memory."""
    if nghttp2_session_callbacks_new(callbacks):
        return -1
    nghttp2_session_callbacks_set_on_header_callback(callbacks[0], on_header)
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks[0], on_data)
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks[0], on_close)
    nghttp2_session_callbacks_set_data_source_read_length_callback(callbacks[0], frame_bytes)
    return 0


# --- one connection ---------------------------------------------------------------------------------


cdef Connection* connection_new(const Script* script, const void* address, unsigned int size) noexcept nogil:
    """A connection on its way, or NULL if it cannot even start. The preface waits in the session."""
    cdef Connection* made = <Connection*>calloc(1, sizeof(Connection))
    cdef nghttp2_settings_entry[2] settings
    if made == NULL:
        return NULL
    made.script = script
    made.connecting = True
    made.socket = open_socket(address, size)
    made.out_capacity = 2 * WRITE_BYTES
    made.out = <uint8_t*>malloc(made.out_capacity)
    settings[0].settings_id = NGHTTP2_SETTINGS_ENABLE_PUSH
    settings[0].value = 0
    settings[1].settings_id = NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE
    settings[1].value = WINDOW
    if (
        made.socket < 0 or made.out == NULL
        or nghttp2_session_client_new(&made.session, script.callbacks, made)
        or nghttp2_submit_settings(made.session, NGHTTP2_FLAG_NONE, settings, 2)
        or nghttp2_session_set_local_window_size(made.session, NGHTTP2_FLAG_NONE, 0, WINDOW)
    ):
        connection_free(made)
        return NULL
    return made


cdef void connection_free(Connection* connection) noexcept nogil:
    """Close it. Calls still under way end as UNAVAILABLE."""
    cdef Call* call
    while connection.first != NULL:
        call = connection.first
        unlink(connection, call)
        if call.code == NO_CODE or call.code == OK:
            call.code = UNAVAILABLE
            say(call, b"the connection was lost", 0)
        connection.script.ended(connection.script.owner, call)
    if connection.session != NULL:
        nghttp2_session_del(connection.session)
    if connection.socket >= 0:
        close(connection.socket)
    free(connection.out)
    free(connection)


cdef bint connection_established(Connection* connection) noexcept nogil:
    """To be asked when the socket says it can be written to for the first time."""
    connection.connecting = False
    return socket_error(connection.socket) == 0


cdef bint connection_open(Connection* connection) noexcept nogil:
    """Whether new calls may start on it; not any more once the server has said GOAWAY."""
    return not connection.connecting and nghttp2_session_check_request_allowed(connection.session) != 0


cdef int connection_call(Connection* connection, Call* call) noexcept nogil:
    """Start a call; due_ns, sent_ns and request are the caller's to set. Not 0 if the session does not take it."""
    cdef nghttp2_data_provider body
    body.source.ptr = call
    body.read_callback = read_body
    call.body_sent = call.received = 0
    call.http_status = call.text_size = 0
    call.code = NO_CODE
    call.refused = False
    call.stream = nghttp2_submit_request(
        connection.session, NULL, connection.script.headers, connection.script.header_count, &body, call)
    if call.stream < 0:
        return -1
    call.next = NULL
    call.previous = connection.last
    if connection.last == NULL:
        connection.first = call
    else:
        connection.last.next = call
    connection.last = call
    connection.calls += 1
    return 0


cdef bint connection_read(Connection* connection, uint8_t* buffer) noexcept nogil:
    """Take what has come, ending calls on the way. False if the connection is over."""
    cdef ssize_t size
    while True:
        size = c_recv(connection.socket, buffer, READ_BYTES, 0)
        if size < 0:
            if errno == EINTR:
                continue
            return errno == EAGAIN
        if size == 0:
            return False
        connection.received_bytes += <size_t>size
        if nghttp2_session_mem_recv(connection.session, buffer, <size_t>size) < 0:
            return False
        if size < READ_BYTES:
            return True


cdef bint make(Connection* connection) noexcept nogil:
    """Have the session fill `out`. False if it failed."""
    cdef const uint8_t* data
    cdef uint8_t* larger
    cdef ssize_t size
    while connection.out_size < WRITE_BYTES:
        size = nghttp2_session_mem_send(connection.session, &data)
        if size < 0:
            return False
        if size == 0:
            return True
        if connection.out_size + <size_t>size > connection.out_capacity:
            larger = <uint8_t*>realloc(connection.out, connection.out_size + <size_t>size)
            if larger == NULL:
                return False
            connection.out = larger
            connection.out_capacity = connection.out_size + <size_t>size
        memcpy(connection.out + connection.out_size, data, <size_t>size)
        connection.out_size += <size_t>size
    return True


cdef bint connection_write(Connection* connection) noexcept nogil:
    """Give the socket what it takes. False if the connection is over."""
    cdef ssize_t size
    while True:
        if connection.out_sent == connection.out_size:
            connection.out_sent = connection.out_size = 0
            if not make(connection):
                return False
            if connection.out_size == 0:
                return nghttp2_session_want_read(connection.session) != 0
        size = c_send(
            connection.socket, connection.out + connection.out_sent, connection.out_size - connection.out_sent,
            MSG_NOSIGNAL)
        if size < 0:
            if errno == EINTR:
                continue
            return errno == EAGAIN
        connection.out_sent += <size_t>size
        connection.sent_bytes += <size_t>size


cdef bint connection_blocked(const Connection* connection) noexcept nogil:
    """Whether it waits for the socket to take more."""
    return connection.connecting or connection.out_sent < connection.out_size


cdef void connection_expire(Connection* connection, int64_t sent_until_ns) noexcept nogil:
    """End the calls that were sent by then as DEADLINE_EXCEEDED, and tell the server."""
    cdef Call* call
    while connection.first != NULL and connection.first.sent_ns <= sent_until_ns:
        call = connection.first
        unlink(connection, call)
        nghttp2_session_set_stream_user_data(connection.session, call.stream, NULL)
        nghttp2_submit_rst_stream(connection.session, NGHTTP2_FLAG_NONE, call.stream, NGHTTP2_CANCEL)
        call.code = DEADLINE_EXCEEDED
        say(call, b"no answer within the timeout", 0)
        connection.script.ended(connection.script.owner, call)
