"""ModelInfer without Python bytecode: a call's bytes become a queued request, a batch's answers become calls' ends."""

cimport cython
from libc.stdint cimport int64_t, uint8_t

from inferd._native.admission cimport Admission, Caller, Permit, release
from inferd._native.bind cimport bind_request
from inferd._native.principal cimport Permission
from inferd._native.clock cimport monotonic_ns
from inferd._native.access cimport ID_BYTES, AccessLog
from inferd._native.doorbell cimport Bell
from inferd._native.headers cimport headers_at
from inferd._native.hub cimport Hub
from inferd._native.nghttp2 cimport nghttp2_rcbuf_get_buf, nghttp2_vec
from inferd._native.peek cimport peek_model
from inferd._native.queue cimport BatchQueue
from inferd._native.region cimport Regions
from inferd._native.span cimport Span, span_equals, span_length
from inferd._native.stats cimport ModelStats
from inferd._native.stream cimport OPEN, Method, Stream
from inferd._native.trace cimport Sampling, Trace
from inferd._native.wire cimport Request, decode

import logging

from inferd.errors import Code, DeadlineExceeded, Forbidden, InferdError, Internal, Overloaded

log = logging.getLogger("inferd.rpc")

cdef enum:
    # Of names of models that are not here, which are the clients' to choose.
    NAME_LETTERS = 128

cdef int CANCELLED = Code.CANCELLED
cdef int DEADLINE_EXCEEDED = Code.DEADLINE_EXCEEDED
cdef int INTERNAL = Code.INTERNAL


@cython.final
cdef class Endpoint:
    """Where requests for one version of one model go, or the refusal that they all get.

    `regions` is the shared memory that they may use; None offers none. `names` are those of the model and the version,
    for `sampling` and `access`, which say what is traced and take note of every end; either may be None. `gone`, if not
    None, is called when nobody waits any more for a request that has left the queue.
    """

    def __cinit__(
        self, BatchQueue queue, Bell bell not None, ModelStats stats not None, refusal=None, Regions regions=None,
        *, tuple names=("", ""), Sampling sampling=None, AccessLog access=None, gone=None,
    ):
        if queue is not None:
            self.queue, self.signature = queue, queue.signature
        elif refusal is None:
            raise ValueError("an endpoint without a queue needs a refusal")
        self.bell, self.stats, self.refusal, self.regions = bell, stats, refusal, regions
        self.names, self.sampling, self.access, self.gone = names, sampling, access, gone

    cdef int leave(self, Request request, bint is_late) except -1:
        """Nobody waits for a request any more, which has no end yet: it leaves the queue, or may run for nobody."""
        request.completion = None
        if self.queue.drop(request):
            release(request)
            if is_late:
                self.stats.expire()
        elif self.gone is not None:
            self.gone()
        return 0


cdef class Waiter:
    """A completion of a request that is told by a call, not by a future."""

    cdef int settled(self, Request request, int64_t now_ns) except -1:
        """The request has an answer or an error, and completes nothing any more."""
        raise NotImplementedError


cdef object admit(Endpoint endpoint, Request request, int64_t deadline_ns, Admission admission, Caller caller):
    """Have a permit for a decoded request, check it and queue it; the bell is not rung yet.

    Gives the refusal that others get as well, if there is one. Raises an InferdError for one of this request's own.
    """
    if endpoint.refusal is not None:
        return endpoint.refusal  # not raised, or it would grow a traceback with each request
    if admission is not None and request.permit is None:
        refusal = admission.acquire(request, caller)
        if refusal is not None:
            return refusal
    try:
        bind_request(endpoint.signature, request, endpoint.regions)
        request.deadline_ns = deadline_ns
        endpoint.queue.put(request, monotonic_ns())
    except BaseException:
        release(request)
        raise
    endpoint.stats.accept()
    return None


cdef Trace begin_trace(Sampling sampling, tuple names, Request request, Stream stream, int64_t begun_ns):
    """The trace of a request for `names`, model and version, if it is one of those that are traced, else None."""
    cdef Trace begun
    cdef nghttp2_vec parent
    parent.base, parent.len = NULL, 0
    if stream.trace_parent > 0:
        parent = nghttp2_rcbuf_get_buf(headers_at(&stream.headers)[stream.trace_parent - 1].value)
    begun = sampling.begin(parent.base, parent.len, begun_ns)
    if begun is None:
        return None
    begun.model, begun.version = names[0], names[1]
    if request is not None:
        begun.request_id, begun.streamed = request.id, request.streamed
    if begun.parent_id is not None:
        states = [value.decode("latin-1") for name, value in stream.metadata() if name == b"tracestate"]
        begun.state = ",".join(states)
    return begun


cdef dict about(Endpoint endpoint, Request request, int code):
    """What a line of the log about a request says beside what happened: as telemetry/watching has it."""
    cdef Trace traced
    told = {"code": Code(code)}
    if endpoint is not None:
        told["model"], told["version"] = endpoint.names
    if request is not None:
        if request.id:
            told["request_id"] = request.id[:ID_BYTES]
        if request.trace is not None:
            traced = request.trace
            told["trace_id"], told["span_id"], told["trace_flags"] = traced.trace_id.hex(), traced.span_id.hex(), "01"
    return told


cdef void tell(Endpoint endpoint, Request request, int code, int64_t begun_ns, int64_t now_ns) noexcept:
    """A request has its end: to its trace, if it has one, and to the access log, if there is one."""
    cdef Trace traced
    if endpoint.access is not None:
        endpoint.access.add(endpoint.names, request, request.trace, code, begun_ns, now_ns)
    if request.trace is not None:
        traced, request.trace = request.trace, None
        traced.waited(request.arrived_ns, request.taken_ns)
        traced.end(code, now_ns)
        endpoint.stats.exemplify(code, <double>(now_ns - begun_ns) * 1e-9, traced.trace_id)


@cython.final
cdef class InferMethod(Method):
    """Answers ModelInfer calls.

    `find` gives the Endpoint for a model's name and version, or raises an InferdError; what it gave is remembered
    until forget(). `unknown` counts requests that found none. `trailers` says what goes with an error beside
    code and text; `unpacked` makes a compressed message plain. `packed`, if not None, takes a Stream and an answer and
    gives it compressed with the name of how, or None where it is to stay as it is. Calls without a deadline get
    `timeout_ns`, if not 0. `admission`, if not None, has the permits. `sampling` and `access` are as those of an Endpoint,
    for requests that found none.
    """

    def __cinit__(
        self, find, ModelStats unknown not None, trailers, unpacked, packed, int64_t timeout_ns,
        Admission admission=None, Sampling sampling=None, AccessLog access=None,
    ):
        self.endpoints, self.find, self.unknown = {}, find, unknown
        self.trailers, self.unpacked, self.packed, self.timeout_ns = trailers, unpacked, packed, timeout_ns
        self.admission, self.sampling, self.access = admission, sampling, access

    def forget(self) -> None:
        """Ask `find` again from now on: a model has come, gone or changed."""
        self.endpoints.clear()
        self.last = None

    cdef int begin(self, Stream stream) except -1:
        if stream.deadline_ns == 0 and self.timeout_ns:
            stream.deadline_ns = stream.arrived_ns + self.timeout_ns
        return 0

    cdef bint coming(self, Stream stream, size_t size, const uint8_t* begun, size_t here) except -1:
        """Refuse now what would be refused once it is here; else it has its permit from now on."""
        cdef Endpoint endpoint
        if self.admission is None or stream.call is not None:
            return True
        endpoint = self.endpoint_begun(stream, begun, here)
        refusal = None if endpoint is None else self.refusal_begun(endpoint, <int64_t>size)
        if refusal is None:
            found = self.admission.reserve(self.caller_of(stream), <int64_t>size)
            if type(found) is Permit:
                stream.permit = found
                if self.admission.message_ns:
                    stream.answer_by_ns = monotonic_ns() + self.admission.message_ns
                    if stream.deadline_ns:
                        stream.answer_by_ns = min(stream.answer_by_ns, stream.deadline_ns)
                    stream.outlet.watch(stream.answer_by_ns)
                return True
            refusal = found
        stream.owner = endpoint
        self.refuse(stream, refusal, None)
        return False

    cdef Endpoint endpoint_begun(self, Stream stream, const uint8_t* begun, size_t here):
        """The endpoint that a message is for, if its beginning says so and the caller may know; None if not."""
        cdef Span all_of_it, name, version
        all_of_it.at, all_of_it.end = begun, begun + here
        if stream.prefix[0] == 1 or not peek_model(all_of_it, &name, &version):
            return None
        try:
            key = (
                (<const char*>name.at)[:span_length(name)].decode(),
                (<const char*>version.at)[:span_length(version)].decode(),
            )
        except UnicodeDecodeError:
            return None
        if stream.permission is not None and not stream.permission.is_for_all and not stream.permission.covers(key[0]):
            return None
        return self.endpoints.get(key)

    cdef object refusal_begun(self, Endpoint endpoint, int64_t size):
        """What one more request is refused for, of at least a row and of so many bytes; None if it may come."""
        if endpoint.refusal is not None:
            return endpoint.refusal
        return endpoint.queue.full() if endpoint.queue.is_full(1, size) else None

    cdef int message(self, Stream stream, bytes body, bint compressed) except -1:
        if stream.call is not None:
            return stream.fail(INTERNAL, b"a unary call has one message, and this is another", None)
        if compressed:
            try:
                body = self.unpacked(stream, body)
            except InferdError as failure:
                return self.refuse(stream, failure, None)
        if stream.permit is not None:
            stream.answer_by_ns = 0
        stream.call = body
        return 0

    cdef int half_close(self, Stream stream) except -1:
        cdef Request request
        cdef Endpoint endpoint
        body, request, endpoint = stream.call, None, None
        if body is None:
            return stream.fail(INTERNAL, b"a unary call has one message, and this one has none", None)
        try:
            request = decode(body)
            if stream.permit is not None:
                (<Permit>stream.permit).give(request)
                stream.permit = None
            endpoint = self.endpoint_of(request, stream.permission)
            stream.owner = endpoint
            if endpoint.sampling is not None and endpoint.sampling.on:
                request.trace = begin_trace(endpoint.sampling, endpoint.names, request, stream, stream.arrived_ns)
            refusal = admit(endpoint, request, stream.deadline_ns, self.admission, self.caller_of(stream))
            if refusal is not None:
                return self.refuse(stream, refusal, request)
        except InferdError as failure:
            return self.refuse(stream, failure, request)
        except Exception:
            log.exception("This is a bug.", extra=about(endpoint, request, INTERNAL))
            return self.refuse(stream, Internal(), request)
        stream.call, request.completion = request, stream
        if request.deadline_ns != stream.deadline_ns:
            # Its parameter `timeout` is the sooner one.
            stream.answer_by_ns = request.deadline_ns
            stream.outlet.watch(request.deadline_ns)
        endpoint.bell.ring()
        return 0

    cdef Caller caller_of(self, Stream stream):
        """Who pays for what comes on this stream: whom the call was found to be from, else its connection."""
        if self.admission is None:
            return None
        if stream.caller is not None:
            return stream.caller
        if stream.principal is not None and stream.principal.name:
            if stream.principal.caller is None:
                stream.principal.caller = self.admission.caller(stream.principal.name, stream.principal.weight)
            stream.caller = stream.principal.caller
            return stream.caller
        if stream.outlet.caller is None:
            stream.outlet.caller = self.admission.connection()
        return stream.outlet.caller

    cdef Endpoint endpoint_of(self, Request request, Permission permission):
        cdef Endpoint endpoint
        cdef tuple key
        # Before it is looked for: who may not use a model is not told whether there is one.
        if permission is not None and not permission.is_for_all and not permission.covers(request.model_name):
            permission.deny(request.model_name)
            raise Forbidden()
        if (
            self.last is not None
            and span_equals(request.model_name_span, self.last_name, len(self.last_name))
            and span_equals(request.model_version_span, self.last_version, len(self.last_version))
        ):
            return self.last
        key = (request.model_name, request.model_version)
        endpoint = self.endpoints.get(key)
        if endpoint is None:
            endpoint = self.find(request.model_name, request.model_version)
            self.endpoints[key] = endpoint
        self.last, self.last_name, self.last_version = endpoint, key[0].encode(), key[1].encode()
        return endpoint

    cdef int refuse(self, Stream stream, failure, Request request) except -1:
        cdef Endpoint endpoint = stream.owner
        cdef ModelStats stats = self.unknown if endpoint is None else endpoint.stats
        cdef int64_t now_ns = monotonic_ns()
        stream.call = stream.owner = stream.permit = None
        if request is not None:
            release(request)
        stats.finished(failure.code, (now_ns - stream.arrived_ns) * 1e-9)
        if endpoint is None:
            self.found_none(stream, request, failure.code, stream.arrived_ns, now_ns)
        elif request is not None:
            tell(endpoint, request, failure.code, stream.arrived_ns, now_ns)
        stats.shed(failure.shed_for)
        return stream.fail(failure.code, failure.public_text.encode(), self.trailers_of(failure))

    cdef int found_none(self, Stream stream, Request request, int code, int64_t begun_ns, int64_t now_ns) except -1:
        """A request found no model, or is none, and has its end: as tell() does with the others."""
        cdef Trace begun = None
        cdef tuple names
        if self.access is None and (self.sampling is None or not self.sampling.on):
            return 0
        names = ("", "") if request is None else (request.model_name[:NAME_LETTERS], request.model_version[:NAME_LETTERS])
        if self.sampling is not None and self.sampling.on:
            begun = begin_trace(self.sampling, names, request, stream, begun_ns)
        if self.access is not None:
            self.access.add(names, request, begun, code, begun_ns, now_ns)
        if begun is not None:
            begun.end(code, now_ns)
        return 0

    cdef list trailers_of(self, failure):
        """What `trailers` says, asked once for all that are Overloaded: those come many at a time."""
        if not isinstance(failure, Overloaded):
            return self.trailers(failure)
        if self.pushback is None:
            self.pushback = self.trailers(failure)
        return self.pushback

    cdef void closed(self, Stream stream) noexcept:
        cdef Endpoint endpoint = stream.owner
        cdef Request request
        cdef int64_t now_ns
        cdef int code = stream.code if stream.code >= 0 else CANCELLED
        stream.permit = None
        if endpoint is None or type(stream.call) is not Request:
            return
        request = stream.call
        stream.call = stream.owner = None
        try:
            endpoint.leave(request, stream.code == DEADLINE_EXCEEDED)
        except Exception:
            log.exception("This is a bug.")
        now_ns = monotonic_ns()
        endpoint.stats.ended(code, (now_ns - stream.arrived_ns) * 1e-9)
        tell(endpoint, request, code, stream.arrived_ns, now_ns)


cdef int end(Stream stream, Request request, trailers, int64_t now_ns) except -1:
    """Give a call the end that its request came to."""
    cdef Endpoint endpoint = stream.owner
    cdef int code = 0
    stream.call = stream.owner = request.completion = None
    if endpoint is None:
        return 0
    if stream.phase != OPEN:
        endpoint.stats.ended(stream.code, (now_ns - stream.arrived_ns) * 1e-9)
        tell(endpoint, request, stream.code, stream.arrived_ns, now_ns)
        return 0
    failure = request.error
    if failure is None:
        packed = (<InferMethod>stream.method).packed
        smaller = None if packed is None else packed(stream, request.answer)
        if smaller is None:
            stream.answer(request.answer, None)
        else:
            stream.answer(smaller[0], smaller[1])
    else:
        code = failure.code
        stream.fail(code, failure.public_text.encode(), trailers(failure))
    endpoint.stats.ended(code, (now_ns - stream.arrived_ns) * 1e-9)
    tell(endpoint, request, code, stream.arrived_ns, now_ns)
    return 0


def settle(list requests not None, ModelStats stats not None, trailers, Hub hub) -> None:
    """Give each request's waiter its end, one by one: a cancelled neighbour changes nothing.

    A waiter is a Stream, a Waiter or an asyncio future. `stats` counts requests that went through a run. What the answers come
    to leaves in one write for each connection of `hub`, if there is one.
    """
    cdef Request request
    cdef int64_t now_ns = monotonic_ns()
    if hub is not None:
        hub.is_busy = True
    try:
        for request in requests:
            release(request)
            waiter = request.completion
            if request.run_ns:
                stats.ran(request, waiter is not None)
            elif type(request.error) is DeadlineExceeded:
                stats.expire()
            if type(waiter) is Stream:
                end(waiter, request, trailers, now_ns)
            elif isinstance(waiter, Waiter):
                request.completion = None
                (<Waiter>waiter).settled(request, now_ns)
            elif waiter is not None and not waiter.done():
                waiter.set_result(None)
    finally:
        if hub is not None:
            hub.is_busy = False
            hub.flush()
