"""ModelStreamInfer without Python bytecode: many requests on one call, answered in the order in which they came.

Requests of one stream wait in their models' queues side by side and share runs as others do. A request that fails
says so in its place in the line, and the stream goes on.
"""

cimport cython
from libc.stdint cimport int64_t

from inferd._native.clock cimport monotonic_ns
from inferd._native.infer cimport Endpoint, InferMethod, Waiter, about, admit, begin_trace, tell
from inferd._native.nghttp2 cimport NGHTTP2_INTERNAL_ERROR
from inferd._native.span cimport span_length
from inferd._native.stats cimport ModelStats
from inferd._native.stream cimport OPEN, Method, Stream
from inferd._native.wire cimport Request, decode

import logging
from collections import deque

from inferd._native.reply import streamed_failure
from inferd.errors import Code, DeadlineExceeded, InferdError, Internal

log = logging.getLogger("inferd.rpc")

cdef int CANCELLED = Code.CANCELLED
cdef int DEADLINE_EXCEEDED = Code.DEADLINE_EXCEEDED
cdef int INTERNAL = Code.INTERNAL
cdef int UNAVAILABLE = Code.UNAVAILABLE

cdef enum:
    # Of one stream: requests begun whose answers have not left, and bytes of those and of these. What comes beyond
    # is parked as it is, and flow control holds the client back.
    MAX_BEGUN = 256
    MAX_HELD_BYTES = 8388608

cdef bytes LEAVING = b"the server is stopping; open a stream to another replica"


@cython.final
cdef class Place(Waiter):
    """One request's place in the line of its stream, from when it is begun until it is its turn to be answered."""

    cdef Line line            # None once nobody waits
    cdef Place following
    cdef Request request      # None if it could not be decoded, and once it has come to an end
    cdef Endpoint endpoint    # None if there is none
    cdef int64_t begun_ns
    cdef size_t nbytes
    cdef Request watched      # to be told of its end to a trace or the access log, or None
    cdef Stream stream        # the one it came on, of a request that found no model
    cdef bint accepted        # it came into the queue
    cdef bytes id             # of one that failed
    cdef bytes answer         # of one that has come to an end: this, or what it failed of
    cdef object failure

    cdef int settled(self, Request request, int64_t now_ns) except -1:
        cdef Line line = self.line
        self.request = None
        if line is None:
            return 0
        if request.error is not None:
            self.fail(request, request.error)
        elif request.deadline_ns and now_ns > request.deadline_ns:
            # Its own or the default one: that of the stream would have ended it.
            model = self.endpoint.signature.model
            self.fail(request, DeadlineExceeded(f"the deadline passed while model '{model}' was working on the request"))
        else:
            self.answer = request.answer
        if line.first is self:
            line.go_on(now_ns)
        return 0

    cdef int fail(self, Request request, failure) except -1:
        self.id = b""
        if request is not None and span_length(request.id_span):
            self.id = (<const char*>request.id_span.at)[:span_length(request.id_span)]
        self.failure = failure
        return 0


@cython.final
cdef class Line:
    """The requests of one stream: those that are parked, those begun, and how many answers are on their way out."""

    cdef Stream stream        # None once the call has ended
    cdef InferStreamMethod method
    cdef object parked        # bodies; one in a tuple is compressed
    cdef Place first
    cdef Place last
    cdef int begun            # from first to last
    cdef int unsent           # answers given to the stream that have not left
    cdef size_t held_bytes    # of the requests begun
    cdef size_t largest_answer
    cdef bint ends_at_failure
    cdef bint is_cut_short    # no more may begin
    cdef bytes encoding       # of what is sent; None for as it is

    cdef bint has_room(self) noexcept:
        """Whether one more may begin: its answer may be as large as the largest so far."""
        return self.begun + self.unsent == 0 or (
            self.begun + self.unsent < MAX_BEGUN
            and self.held_bytes + self.begun * self.largest_answer + self.stream.unsent_bytes < MAX_HELD_BYTES
        )

    cdef int take(self, bytes body, bint compressed) except -1:
        """A message has come."""
        if self.is_cut_short:
            return 0
        if self.parked or not self.has_room():
            self.parked.append((body,) if compressed else body)
            return 0
        self.begin(body, compressed)
        return self.go_on(monotonic_ns())

    cdef int begin(self, bytes body, bint compressed) except -1:
        """Have a request queued, in the last place of the line."""
        cdef Place place = Place.__new__(Place)
        cdef InferMethod infer = self.method.infer
        cdef Request request = None
        cdef Endpoint endpoint = None
        cdef int64_t deadline_ns
        place.line, place.stream, place.begun_ns = self, self.stream, monotonic_ns()
        if self.last is None:
            self.first = place
        else:
            self.last.following = place
        self.last = place
        self.begun += 1
        self.stream.taken(<size_t>len(body))
        try:
            if compressed:
                body = infer.unpacked(self.stream, body)
            place.nbytes = <size_t>len(body)
            self.held_bytes += place.nbytes
            request = decode(body)
            request.streamed = True
            place.watched = request
            endpoint = place.endpoint = infer.endpoint_of(request, self.stream.permission)
            place.watched = place.stream = None
            if endpoint.access is not None:
                place.watched = request
            if endpoint.sampling is not None and endpoint.sampling.on:
                request.trace = begin_trace(endpoint.sampling, endpoint.names, request, self.stream, place.begun_ns)
                if request.trace is not None:
                    place.watched = request
            deadline_ns = self.stream.deadline_ns
            if deadline_ns == 0 and infer.timeout_ns:
                deadline_ns = place.begun_ns + infer.timeout_ns
            refusal = admit(endpoint, request, deadline_ns, infer.admission, infer.caller_of(self.stream))
            if refusal is not None:
                endpoint.stats.shed(refusal.shed_for)
                return place.fail(request, refusal)
        except InferdError as failure:
            if endpoint is not None:
                endpoint.stats.shed(failure.shed_for)
            return place.fail(request, failure)
        except Exception:
            log.exception("This is a bug.", extra=about(endpoint, request, INTERNAL))
            return place.fail(request, Internal())
        place.request, place.accepted, request.completion = request, True, place
        endpoint.bell.ring()
        return 0

    cdef int go_on(self, int64_t now_ns) except -1:
        """Send the answers whose turn it is, begin what there is room for, and end the call once all is done."""
        cdef Stream stream = self.stream
        while stream is not None:
            while self.first is not None and (self.first.answer is not None or self.first.failure is not None):
                if not self.send_first(now_ns):
                    return 0
            if not self.parked or not self.has_room():
                break
            body = self.parked.popleft()
            if type(body) is tuple:
                self.begin(body[0], True)
            else:
                self.begin(body, False)
        if stream is None or self.first is not None or self.parked:
            return 0
        if self.is_cut_short:
            self.end(UNAVAILABLE, LEAVING, None)
        elif stream.half_closed:
            self.end(0, b"", None)
        return 0

    cdef bint send_first(self, int64_t now_ns) except -1:
        """Give the stream the answer of the first in line. False if the call has ended with it."""
        cdef Place place = self.first
        cdef int code = 0
        cdef bytes message = place.answer
        cdef bint compressed = False
        failure = place.failure
        self.leave_line(place)
        if failure is not None:
            code = failure.code
            message = streamed_failure(failure.public_text.encode(), place.id)
            trailers = self.method.infer.trailers(failure)
        self.method.count(place, code, now_ns)
        if failure is not None and (self.ends_at_failure or (code == DEADLINE_EXCEEDED and self.is_late(now_ns))):
            self.end(code, failure.public_text.encode(), trailers)
            return False
        self.largest_answer = max(self.largest_answer, <size_t>len(message))
        if self.encoding is not None:
            smaller = self.method.infer.packed(self.stream, message)
            if smaller is not None:
                message, compressed = smaller[0], True
            if not self.stream.head_sent:
                self.stream.submit_head([(b"grpc-encoding", self.encoding)])
        self.unsent += 1
        self.stream.push(message, compressed)
        return True

    cdef bint is_late(self, int64_t now_ns) noexcept:
        """Whether the stream's own deadline has passed: then a request was only the first to notice it."""
        return 0 < self.stream.deadline_ns <= now_ns

    cdef int leave_line(self, Place place) except -1:
        """Of the first in line."""
        self.first = place.following
        if self.first is None:
            self.last = None
        self.begun -= 1
        self.held_bytes -= place.nbytes
        place.line = place.following = None
        return 0

    cdef int cut_short(self) except -1:
        """Begin nothing more, and end the call once all that was begun is answered."""
        if self.stream is not None:
            self.is_cut_short = bool(self.parked) or not self.stream.half_closed
            self.parked.clear()
            self.go_on(monotonic_ns())
        return 0

    cdef int sent(self) except -1:
        """An answer has left."""
        self.unsent -= 1
        if self.parked:
            self.go_on(monotonic_ns())
        return 0

    cdef int end(self, int code, bytes text, list trailers) except -1:
        """Give the call its status, after the answers that were given before it."""
        cdef Stream stream = self.stream
        self.over(CANCELLED)
        return stream.end(code, text, trailers) if stream.phase == OPEN else 0

    cdef int over(self, int code) except -1:
        """Nobody waits any more: take out of the queues what is still in them."""
        cdef Place place
        cdef Request request
        cdef int64_t now_ns = monotonic_ns()
        self.stream = None
        self.parked.clear()
        while self.first is not None:
            place = self.first
            self.leave_line(place)
            request, place.request = place.request, None
            if request is not None:
                place.endpoint.leave(request, code == DEADLINE_EXCEEDED)
            self.method.count(place, code, now_ns)
        return 0


@cython.final
cdef class InferStreamMethod(Method):
    """Answers ModelStreamInfer calls, by what an InferMethod knows of models.

    `encoding`, if not None, takes a Stream and gives the name of how its answers may be compressed, or None; what
    `packed` of the InferMethod gives is compressed so.
    """

    cdef InferMethod infer
    cdef object encoding
    cdef set lines
    cdef bint is_leaving

    def __cinit__(self, InferMethod infer not None, encoding):
        self.infer, self.encoding, self.lines = infer, encoding, set()

    def leave(self) -> None:
        """Begin nothing more: each stream ends once what was begun is answered, with UNAVAILABLE if that is not all."""
        cdef Line line
        self.is_leaving = True
        for line in tuple(self.lines):
            line.cut_short()

    cdef int begin(self, Stream stream) except -1:
        cdef Line line
        if self.is_leaving:
            return stream.end(UNAVAILABLE, LEAVING, None)
        line = Line.__new__(Line)
        line.stream, line.method, line.parked = stream, self, deque()
        line.ends_at_failure = (b"triton_grpc_error", b"true") in stream.metadata()
        if self.encoding is not None:
            line.encoding = self.encoding(stream)
        stream.call = line
        self.lines.add(line)
        return 0

    cdef int message(self, Stream stream, bytes body, bint compressed) except -1:
        cdef Line line = stream.call
        return line.take(body, compressed) if line is not None and line.stream is not None else 0

    cdef int half_close(self, Stream stream) except -1:
        cdef Line line = stream.call
        return line.go_on(monotonic_ns()) if line is not None else 0

    cdef void sent(self, Stream stream) noexcept:
        cdef Line line = stream.call
        try:
            if line is not None:
                line.sent()
        except Exception:
            log.exception("This is a bug.")
            stream.reset(NGHTTP2_INTERNAL_ERROR)

    cdef void closed(self, Stream stream) noexcept:
        cdef Line line = stream.call
        if line is None:
            return
        try:
            self.lines.discard(line)
            line.over(stream.code if stream.code >= 0 else CANCELLED)
        except Exception:
            log.exception("This is a bug.")

    cdef int count(self, Place place, int code, int64_t now_ns) except -1:
        """A request has its end in the statistics of its model."""
        cdef ModelStats stats = self.infer.unknown if place.endpoint is None else place.endpoint.stats
        if place.accepted:
            stats.ended(code, (now_ns - place.begun_ns) * 1e-9)
        else:
            stats.finished(code, (now_ns - place.begun_ns) * 1e-9)
        if place.endpoint is None:
            self.infer.found_none(place.stream, place.watched, code, place.begun_ns, now_ns)
            place.stream = place.watched = None
        elif place.watched is not None:
            tell(place.endpoint, place.watched, code, place.begun_ns, now_ns)
            place.watched = None
        return 0
