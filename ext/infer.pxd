"""ModelInfer without Python bytecode: see infer.pyx. What streamed inference shares with it."""

from libc.stdint cimport int64_t, uint8_t

from inferd._native.access cimport AccessLog
from inferd._native.admission cimport Admission, Caller
from inferd._native.principal cimport Permission
from inferd._native.doorbell cimport Bell
from inferd._native.queue cimport BatchQueue
from inferd._native.region cimport Regions
from inferd._native.signature cimport Signature
from inferd._native.stats cimport ModelStats
from inferd._native.stream cimport Method, Stream
from inferd._native.trace cimport Sampling, Trace
from inferd._native.wire cimport Request


cdef class Endpoint:
    cdef Signature signature
    cdef BatchQueue queue
    cdef Bell bell
    cdef ModelStats stats
    cdef object refusal
    cdef Regions regions       # the shared memory that requests may use, or None
    cdef Sampling sampling     # which requests are traced; None without tracing
    cdef AccessLog access      # where ends of requests are noted, or None
    cdef tuple names           # (model, version)
    cdef object gone           # called when nobody waits any more for a request that left the queue, or None

    cdef int leave(self, Request request, bint is_late) except -1


cdef class Waiter:
    """A completion of a request that is told by a call, not by a future."""

    cdef int settled(self, Request request, int64_t now_ns) except -1


cdef class InferMethod(Method):
    cdef dict endpoints
    cdef object find
    cdef ModelStats unknown
    cdef object trailers
    cdef object unpacked
    cdef object packed
    cdef int64_t timeout_ns
    cdef Admission admission
    cdef list pushback         # what goes with every Overloaded
    cdef Sampling sampling     # of requests for models that are not here, or None; and where their ends are noted
    cdef AccessLog access

    # The last one looked up, and by which name: most requests ask for what the one before them asked for.
    cdef Endpoint last
    cdef bytes last_name
    cdef bytes last_version

    cdef Caller caller_of(self, Stream stream)
    cdef Endpoint endpoint_begun(self, Stream stream, const uint8_t* begun, size_t here)
    cdef object refusal_begun(self, Endpoint endpoint, int64_t size)
    cdef int refuse(self, Stream stream, failure, Request request) except -1
    cdef Endpoint endpoint_of(self, Request request, Permission permission)
    cdef list trailers_of(self, failure)
    cdef int found_none(self, Stream stream, Request request, int code, int64_t begun_ns, int64_t now_ns) except -1


cdef object admit(Endpoint endpoint, Request request, int64_t deadline_ns, Admission admission, Caller caller)
cdef Trace begin_trace(Sampling sampling, tuple names, Request request, Stream stream, int64_t begun_ns)
cdef dict about(Endpoint endpoint, Request request, int code)
cdef void tell(Endpoint endpoint, Request request, int code, int64_t begun_ns, int64_t now_ns) noexcept
