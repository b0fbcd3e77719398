"""The load generator: what Python sees of a crowd of connections."""

cimport cython
from libc.errno cimport errno
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free

from inferd._native.arrivals cimport Arrivals, next_arrival
from inferd._native.client cimport Body, callbacks_new
from inferd._native.clock cimport monotonic_ns
from inferd._native.crowd cimport (
    Crowd, crowd_finished, crowd_free, crowd_leave, crowd_open, crowd_report, crowd_work,
)
from inferd._native.nghttp2 cimport (
    NGHTTP2_NV_FLAG_NO_COPY_NAME, NGHTTP2_NV_FLAG_NO_COPY_VALUE, nghttp2_nv, nghttp2_session_callbacks_del,
)
from inferd._native.tally cimport MAX_VARIANTS, Accepted, Slice


cdef Arrivals arrivals_from(double first_due_ns, double interval_ns, bint poisson, uint64_t seed) noexcept:
    cdef Arrivals arrivals
    arrivals.due_ns, arrivals.interval_ns, arrivals.poisson = first_due_ns, interval_ns, poisson
    # Seeds that follow each other must not begin alike, and none may be 0.
    arrivals.random = (seed + 1) * <uint64_t>0x9E3779B97F4A7C15 | 1
    return arrivals


def due_times_ns(int count, double interval_ns, bint poisson=False, uint64_t seed=0) -> list[float]:
    """When the first calls of an open loop are due, in ns after the first one."""
    cdef Arrivals arrivals = arrivals_from(0, interval_ns, poisson, seed)
    found = []
    for _ in range(count):
        found.append(arrivals.due_ns)
        next_arrival(&arrivals)
    return found


@cython.final
@cython.no_gc_clear
cdef class Generator:
    """The connections of one thread, and the load that they carry.

    `address` is a socket address as the kernel takes it. `requests` are serialized messages, sent in turn. With
    `interval_ns` the loop is open: calls are due so far apart, on average if `poisson`, the first of them at
    `first_due_ns` of the monotonic clock. `limit` calls are made in all, if it is not 0. A call without an answer
    after `timeout_ns` ends, if that is not 0. With `answers`, the messages accepted for each request, every OK
    answer is compared. With `grpc` false any HTTP 200 is an answer.

    Raises ValueError for what makes no sense, OSError if the kernel gives no files, MemoryError.
    """

    cdef Crowd crowd
    cdef Slice current
    cdef list owned
    cdef list accepting
    cdef nghttp2_nv* headers
    cdef Body* bodies

    def __cinit__(
        self, bytes address not None, headers, requests, *, int connections, int streams, double interval_ns=0.0,
        bint poisson=False, uint64_t seed=0, int64_t first_due_ns=0, int64_t limit=0, int64_t timeout_ns=0,
        answers=None, bint grpc=True,
    ):
        cdef Crowd* crowd = &self.crowd
        self.owned, self.accepting, self.current = [address], [], Slice()
        crowd.tally = &self.current.tally
        crowd.epoll = crowd.timer = -1
        if connections < 1 or streams < 1 or not len(requests):
            raise ValueError("a load needs at least one connection, one stream and one request")
        if interval_ns < 0 or limit < 0 or timeout_ns < 0:
            raise ValueError("an interval, a limit and a timeout cannot be negative")
        if answers is not None and len(answers) != len(requests):
            raise ValueError(f"{len(answers)} lists of answers for {len(requests)} requests")
        if answers is not None and not grpc:
            raise ValueError("only answers of gRPC can be compared: others are no messages")
        self.own_headers(headers)
        self.own_requests(requests)
        if callbacks_new(&crowd.script.callbacks):
            raise MemoryError
        if answers is not None:
            crowd.accepted = <Accepted*>calloc(len(requests), sizeof(Accepted))
            if crowd.accepted == NULL:
                raise MemoryError
            self.accepting.extend((i, answer) for i, known in enumerate(answers) for answer in known)
        crowd.script.keep_answers = answers is not None
        crowd.script.grpc = grpc
        crowd.address, crowd.address_size = <uint8_t*><char*>address, <unsigned int>len(address)
        crowd.streams, crowd.limit, crowd.timeout_ns = streams, limit, timeout_ns
        crowd.arrivals = arrivals_from(first_due_ns or monotonic_ns(), interval_ns, poisson, seed)
        if crowd_open(crowd, connections):
            raise OSError(errno, "no memory or no file for the connections")

    cdef int own_headers(self, headers) except -1:
        cdef Py_ssize_t i
        self.headers = <nghttp2_nv*>calloc(len(headers) + 1, sizeof(nghttp2_nv))
        if self.headers == NULL:
            raise MemoryError
        for i in range(len(headers)):
            name, value = bytes(headers[i][0]), bytes(headers[i][1])
            self.owned.extend((name, value))
            self.headers[i].name, self.headers[i].namelen = <uint8_t*><char*>name, len(name)
            self.headers[i].value, self.headers[i].valuelen = <uint8_t*><char*>value, len(value)
            self.headers[i].flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE
        self.crowd.script.headers, self.crowd.script.header_count = self.headers, len(headers)
        return 0

    cdef int own_requests(self, requests) except -1:
        cdef Py_ssize_t i
        self.bodies = <Body*>calloc(len(requests), sizeof(Body))
        if self.bodies == NULL:
            raise MemoryError
        for i in range(len(requests)):
            self.bodies[i] = self.own_message(bytes(requests[i]))
        self.crowd.script.bodies, self.crowd.body_count = self.bodies, <int>len(requests)
        return 0

    cdef Body own_message(self, bytes message):
        """The message as it stands on the wire: not compressed, four bytes of size, itself."""
        cdef Body body
        cdef bytes framed = b"\0" + len(message).to_bytes(4, "big") + message
        self.owned.append(framed)
        body.data, body.size = <uint8_t*><char*>framed, <size_t>len(framed)
        return body

    def __dealloc__(self):
        crowd_leave(&self.crowd)
        crowd_free(&self.crowd)
        nghttp2_session_callbacks_del(self.crowd.script.callbacks)
        free(self.crowd.accepted)
        free(self.headers)
        free(self.bodies)

    @property
    def finished(self) -> bool:
        """Whether all calls of the limit have ended."""
        return crowd_finished(&self.crowd)

    def accept(self, int request, bytes answer not None) -> None:
        """Count this answer to request number `request` as a right one, from the next slice on.

        Raises IndexError if there is no such request. Beyond 64 answers for one request more are not remembered.
        """
        if not 0 <= request < self.crowd.body_count:
            raise IndexError(f"no request number {request}")
        self.accepting.append((request, answer))

    cdef int learn(self) except -1:
        cdef Accepted* known
        while self.accepting and self.crowd.accepted != NULL:
            request, answer = self.accepting.pop()
            known = &self.crowd.accepted[<int>request]
            if known.count < MAX_VARIANTS:
                known.variants[known.count] = self.own_message(answer)
                known.count += 1
        return 0

    def run(self, int64_t until_ns):
        """Offer the load until that moment of the monotonic clock, or until the limit's last call has ended.

        Connections stay open and calls under way between one run and the next. The GIL is released meanwhile.
        """
        cdef Slice made = Slice()
        cdef Crowd* crowd = &self.crowd
        self.learn()
        self.current = made
        crowd.tally = &made.tally
        made.start_ns = monotonic_ns()
        with nogil:
            crowd_work(crowd, until_ns)
        crowd_report(crowd, made)
        return made

    def close(self) -> None:
        """Close all connections; calls under way are lost, and no slice counts them."""
        self.current = Slice()
        self.crowd.tally = &self.current.tally
        crowd_leave(&self.crowd)
