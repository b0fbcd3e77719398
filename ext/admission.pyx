"""Permits: see admission.pxd.

A request has a permit from when it is taken until it has its end, also while it runs for nobody: what it costs is what
counts. It is had at once or not at all. Beside the bounds for all, a caller may hold at most as much as it leaves free
for others: one alone may have half of everything, and of several greedy ones each as much as is left for whoever comes
next. So there is room for a caller that holds little, whatever others do, and nobody has to be counted or known.

All of it belongs to the loop's thread.
"""

cimport cython
from libc.stdint cimport int64_t

from inferd._native.live cimport INFERD_DEBUG, CALLERS, count
from inferd._native.wire cimport Request

from weakref import WeakValueDictionary

from inferd.errors import CallerBusy, MemoryShort, ServerBusy, ServerFull


@cython.final
cdef class Caller:
    """Whose requests are counted together. Made by Admission only; compare numbers."""

    def __cinit__(self):
        if INFERD_DEBUG:
            count(CALLERS, 1)

    def __dealloc__(self):
        if INFERD_DEBUG:
            count(CALLERS, -1)

    def __init__(self):
        raise TypeError("a Caller is made by Admission")


@cython.final
cdef class Admission:
    """Permits for requests, by their number, by the bytes of their messages and by caller; 0 sets no bound.

    `message_ns`: how long one may be held for a message that is still coming.
    """

    def __cinit__(
        self, *, int64_t max_requests=0, int64_t max_bytes=0, int64_t max_caller_requests=0, int64_t message_ns=0
    ):
        self.max_requests, self.max_bytes, self.message_ns = max_requests, max_bytes, message_ns
        self.max_caller_requests = max_caller_requests
        self.by_key = WeakValueDictionary()
        self.anybody = self.new_caller("")
        self.too_many, self.too_many_bytes = ServerBusy(), ServerFull()
        self.too_many_of_caller, self.too_little_memory = CallerBusy(), MemoryShort()

    cdef Caller new_caller(self, str key):
        cdef Caller caller = Caller.__new__(Caller)
        caller.admission, caller.key, caller.number, caller.weight = self, key, self.callers, 1
        self.callers += 1
        return caller

    def connection(self) -> Caller:
        """A caller that is told from others by its connection alone."""
        return self.new_caller("")

    def caller(self, str key not None, int weight=1) -> Caller:
        """The caller of that name; one as long as anybody holds it. Its weight is from now on the one that is given."""
        cdef Caller found = self.by_key.get(key)
        if weight < 1:
            raise ValueError(weight)
        if found is None:
            found = self.by_key[key] = self.new_caller(key)
        found.weight = weight
        return found

    cdef object refusal(self, Caller caller, int64_t nbytes):
        """What there is no permit for, shared and not to be raised; None if there is one."""
        if self.spare_bytes and nbytes >= self.spare_bytes:
            return self.too_little_memory
        if self.max_requests and self.requests >= self.max_requests:
            return self.too_many
        # An idle server takes a request of any size that it reads at all.
        if self.max_bytes and self.requests and nbytes > self.max_bytes - self.bytes:
            return self.too_many_bytes
        if caller is not None and caller.requests:
            if self.max_caller_requests and caller.requests >= self.max_caller_requests:
                return self.too_many_of_caller
            if self.max_requests and caller.requests >= self.max_requests - self.requests:
                return self.too_many_of_caller
            if self.max_bytes and caller.bytes + nbytes > self.max_bytes - self.bytes:
                return self.too_many_of_caller
        return None

    cdef void add(self, Caller caller, int64_t nbytes) noexcept:
        caller.requests += 1
        caller.bytes += nbytes
        self.requests += 1
        self.bytes += nbytes

    cdef object acquire(self, Request request, Caller caller):
        """Have a permit for a request. None, or the refusal, which is shared and not to be raised."""
        cdef int64_t nbytes = <int64_t>len(request.body)
        if request.permit is not None:
            raise ValueError("admission: a request was admitted twice")
        refusal = self.refusal(caller, nbytes)
        if refusal is not None:
            return refusal
        if caller is None:
            caller = self.anybody
        self.add(caller, nbytes)
        belong(request, caller)
        return None

    cdef object reserve(self, Caller caller, int64_t nbytes):
        """Have a permit for a request whose message of so many bytes is still to come. It, or the shared refusal."""
        cdef Permit permit
        refusal = self.refusal(caller, nbytes)
        if refusal is not None:
            return refusal
        permit = Permit.__new__(Permit)
        permit.caller, permit.nbytes = self.anybody if caller is None else caller, nbytes
        self.add(permit.caller, nbytes)
        return permit

    def admit(self, Request request not None, Caller caller=None) -> None:
        """Have a permit for a request. Raises the Overloaded that says what is short."""
        refusal = self.acquire(request, caller)
        if refusal is not None:
            raise type(refusal)()


@cython.final
@cython.no_gc_clear
cdef class Permit:
    """A permit that no request has yet. Made by Admission only."""

    def __init__(self):
        raise TypeError("a Permit is made by Admission")

    def __dealloc__(self):
        if self.caller is not None:
            give_back(self.caller, self.nbytes)

    cdef void give(self, Request request) noexcept:
        """The message is here: its request has the permit from now on."""
        cdef Caller caller = self.caller
        if caller is None:
            return
        self.caller = None
        if self.nbytes != <int64_t>len(request.body):
            # It was unpacked, so what it needs is another one.
            give_back(caller, self.nbytes)
        else:
            belong(request, caller)


cdef inline void belong(Request request, Caller caller) noexcept:
    request.permit, request.caller, request.weight = caller, caller.number, caller.weight


cdef inline void give_back(Caller caller, int64_t nbytes) noexcept:
    caller.requests -= 1
    caller.bytes -= nbytes
    caller.admission.requests -= 1
    caller.admission.bytes -= nbytes


cdef void release(Request request) noexcept:
    """Give a permit back, if the request has one. It has its end, or left before."""
    cdef Caller caller = request.permit
    if caller is None:
        return
    request.permit = None
    give_back(caller, <int64_t>len(request.body))


def let_go(Request request not None) -> None:
    """The same for Python."""
    release(request)
