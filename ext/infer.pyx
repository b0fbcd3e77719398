"""ModelInfer without Python bytecode: a call's bytes become a queued request, a batch's answers become calls' ends."""

cimport cython
from libc.stdint cimport int64_t

from inferd._native.bind cimport bind_request
from inferd._native.clock cimport monotonic_ns
from inferd._native.queue cimport BatchQueue
from inferd._native.signature cimport Signature
from inferd._native.stream cimport OPEN, Method, Stream
from inferd._native.wire cimport Request

from inferd._native.wire import decode
from inferd.errors import Code, InferdError, Internal

cdef int CANCELLED = Code.CANCELLED
cdef int INTERNAL = Code.INTERNAL


@cython.final
cdef class Endpoint:
    """Where requests for one version of one model go, or the refusal that they all get."""

    cdef Signature signature
    cdef BatchQueue queue
    cdef object ring
    cdef object finished
    cdef object refusal

    def __cinit__(self, BatchQueue queue, bell, stats, refusal=None):
        if queue is not None:
            self.queue, self.signature = queue, queue.signature
        elif refusal is None:
            raise ValueError("an endpoint without a queue needs a refusal")
        self.ring, self.finished, self.refusal = bell.ring, stats.finished, refusal


@cython.final
cdef class InferMethod(Method):
    """Answers ModelInfer calls.

    `find` gives the Endpoint for a model's name and version, or raises an InferdError; what it gave is remembered
    until forget(). `unknown` counts requests that found none. `trailers` says what goes with an error beside
    code and text; `unpacked` makes a compressed message plain. Calls without a deadline get `timeout_ns`, if not 0.
    """

    cdef dict endpoints
    cdef object find
    cdef object unknown
    cdef object trailers
    cdef object unpacked
    cdef int64_t timeout_ns

    def __cinit__(self, find, unknown, trailers, unpacked, int64_t timeout_ns):
        self.endpoints, self.find, self.unknown = {}, find, unknown
        self.trailers, self.unpacked, self.timeout_ns = trailers, unpacked, timeout_ns

    def forget(self) -> None:
        """Ask `find` again from now on: a model has come, gone or changed."""
        self.endpoints.clear()

    cdef int begin(self, Stream stream) except -1:
        if stream.deadline_ns == 0 and self.timeout_ns:
            stream.deadline_ns = stream.arrived_ns + self.timeout_ns
        return 0

    cdef int message(self, Stream stream, bytes body, bint compressed) except -1:
        if stream.call is not None:
            return stream.fail(INTERNAL, b"a unary call has one message, and this is another", None)
        if compressed:
            try:
                body = self.unpacked(stream, body)
            except InferdError as failure:
                return self.refuse(stream, failure)
        stream.call = body
        return 0

    cdef int half_close(self, Stream stream) except -1:
        cdef Request request
        cdef Endpoint endpoint = None
        body = stream.call
        if body is None:
            return stream.fail(INTERNAL, b"a unary call has one message, and this one has none", None)
        try:
            request = decode(body)
            key = (request.model_name, request.model_version)
            endpoint = self.endpoints.get(key)
            if endpoint is None:
                endpoint = self.find(request.model_name, request.model_version)
                self.endpoints[key] = endpoint
            stream.owner = endpoint
            if endpoint.refusal is not None:
                return self.refuse(stream, endpoint.refusal)
            bind_request(endpoint.signature, request)
            request.deadline_ns = stream.deadline_ns
            endpoint.queue.put(request, monotonic_ns())
        except InferdError as failure:
            return self.refuse(stream, failure)
        except Exception:
            self.refuse(stream, Internal())
            raise
        stream.call, request.completion = request, stream
        endpoint.ring()
        return 0

    cdef int refuse(self, Stream stream, failure) except -1:
        cdef Endpoint endpoint = stream.owner
        finished = self.unknown.finished if endpoint is None else endpoint.finished
        stream.call = stream.owner = None
        finished(<int>failure.code, (monotonic_ns() - stream.arrived_ns) * 1e-9)
        return stream.fail(failure.code, failure.public_text.encode(), self.trailers(failure))

    cdef void closed(self, Stream stream) noexcept:
        cdef Endpoint endpoint = stream.owner
        cdef Request request
        if endpoint is None or type(stream.call) is not Request:
            return
        request = stream.call
        stream.call = stream.owner = request.completion = None
        endpoint.queue.drop(request)
        endpoint.finished(
            stream.code if stream.code >= 0 else CANCELLED, (monotonic_ns() - stream.arrived_ns) * 1e-9)


cdef int end(Stream stream, Request request, trailers) except -1:
    """Give a call the end that its request came to."""
    cdef Endpoint endpoint = stream.owner
    stream.call = stream.owner = request.completion = None
    if endpoint is None or stream.phase != OPEN:
        return 0
    failure = request.error
    if failure is None:
        stream.answer(request.answer)
        endpoint.finished(0, (monotonic_ns() - stream.arrived_ns) * 1e-9)
    else:
        stream.fail(failure.code, failure.public_text.encode(), trailers(failure))
        endpoint.finished(<int>failure.code, (monotonic_ns() - stream.arrived_ns) * 1e-9)
    return 0


def settle(list requests not None, ran, trailers) -> None:
    """Give each request's waiter its end, one by one: a cancelled neighbour changes nothing.

    A waiter is a Stream or an asyncio future. `ran` counts a request that went through a run.
    """
    cdef Request request
    for request in requests:
        if request.run_ns:
            ran(request)
        waiter = request.completion
        if type(waiter) is Stream:
            end(waiter, request, trailers)
        elif waiter is not None and not waiter.done():
            waiter.set_result(None)
