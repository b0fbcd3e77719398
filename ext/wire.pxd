"""ModelInferRequest bytes -> Request: a view of borrowed spans. No protobuf objects, no object per tensor."""

from libc.stdint cimport int16_t, int64_t, uint8_t, uint64_t

from inferd._native.datatype cimport Datatype
from inferd._native.region cimport Place
from inferd._native.span cimport Span


cdef enum:
    # More inputs, outputs or raw entries than this in one message are refused: the arrays that describe
    # them would outgrow the message itself.
    MAX_TENSORS = 1024
    MAX_RANK = 64


cdef enum RequestState:
    DECODED   # not bound yet, or refused by bind
    BOUND     # may be queued: it never was, or its owner took it back
    QUEUED    # in a BatchQueue, which holds one reference
    TAKEN     # in a Batch, or expired


cdef enum ParameterFault:
    # Bits: the request has a parameter of this name whose type or value is wrong.
    BAD_TIMEOUT = 1
    BAD_PRIORITY = 2
    BAD_SEQUENCE_ID = 4
    BAD_SEQUENCE_START = 8
    BAD_SEQUENCE_END = 16
    BAD_FINAL_RESPONSE = 32
    UNKNOWN_TRITON = 64


cdef struct Tensor:
    # One input as the client sent it. All spans lie in Request.body.
    Span name
    Span datatype_name
    Span body            # the InferInputTensor message, walked again for typed contents
    Datatype datatype
    int rank
    int dims_at          # index of the first dimension in Request.dims
    uint64_t kinds       # bit k set: InferTensorContents field k has elements
    int64_t typed_count  # elements in typed contents, meaningful when one kind is set
    bint in_shared_memory
    bint absent          # the client left it out; put there by bind, without dimensions or data
    # Set by bind: raw little-endian bytes, in Request.body, in Request.typed or in one of Request.held; NULL where they
    # are numbers in shared memory and stay in `place` until they are gathered.
    const uint8_t* data
    Py_ssize_t nbytes
    Place place


cdef struct Wanted:
    # One requested output.
    Span name
    int64_t classes      # so many of the best, as text; 0: the values as they are; below 0: no such number
    bint in_shared_memory
    Span body            # the InferRequestedOutputTensor message, walked again for shared memory
    Place place          # set by bind: where the values go, if in_shared_memory


cdef class Request:
    # Owns `body`, and with it every span below.
    cdef readonly bytes body
    cdef Span model_name_span
    cdef Span model_version_span
    cdef Span id_span

    cdef Tensor* tensors
    cdef int tensor_count
    cdef int tensor_room
    cdef int absent_count         # of the tensors once bound
    cdef Tensor inline_tensors[3]

    cdef int64_t* dims
    cdef int dim_count
    cdef int dim_room
    cdef int64_t inline_dims[16]

    cdef Span* raw
    cdef int raw_count
    cdef int raw_room
    cdef Span inline_raw[3]

    cdef Wanted* wanted
    cdef int wanted_count
    cdef int wanted_room
    cdef Wanted inline_wanted[2]

    # Request parameters that the server itself reads; others are skipped.
    cdef readonly int64_t timeout_us
    cdef readonly uint64_t priority
    cdef readonly bint in_sequence
    cdef int parameter_faults     # a set of ParameterFault
    cdef Span unknown_triton

    # While read_request is inside a tensor, which then is number tensor_count.
    cdef bint reading_input

    # Set by bind.
    cdef object signature         # what it was bound to, also if that did not accept it
    cdef uint8_t* typed           # owned: tensors that came as typed contents, as raw bytes
    cdef list held                # None, or the Regions in use and copies of what must not change after its check
    cdef int16_t* chosen          # NULL: all outputs; else for each of the model's 1 + its place in wanted, or 0
    cdef int16_t inline_chosen[16]
    cdef readonly int64_t rows
    cdef readonly bint on_gpu     # some of its tensors are in memory of a GPU that a client has registered
    cdef readonly bint apart      # its rows do not fit into a batch: it runs alone, as it is
    cdef readonly Py_ssize_t nbytes
    cdef uint64_t shape_hash

    # Kept by the BatchQueue while queued: neighbours in its line and within the shape group, borrowed.
    cdef RequestState state
    cdef int level                # of its priority, from 0
    cdef int line                 # that of its level, or that of late requests
    cdef int weight               # of who pays for it, as the Admission knows it
    cdef void* next_arrival
    cdef void* prev_arrival
    cdef void* next_in_group
    cdef void* prev_in_group
    cdef void* group              # NULL while it is parked behind others of its caller
    cdef void* flow               # where those are counted; NULL if callers are not told apart
    cdef readonly int64_t arrived_ns
    cdef public int64_t deadline_ns   # monotonic; 0 = none; set before the request is queued, which may set a sooner one
    cdef int64_t until_ns             # when its time in the queue is over; 0 = never
    cdef readonly int64_t turn        # the number of its batch, from 1, where answers are given in order; else 0

    # Kept by the Admission: who pays for it, while it has a permit, and as a number for good; 0 = nobody is told apart.
    cdef object permit
    cdef readonly int64_t caller

    # The request holds its own completion; whoever settles it checks it first.
    cdef public object completion
    cdef public object answer         # bytes of the ModelInferResponse
    cdef public object error          # or the InferdError to tell the client
    cdef public bint streamed         # the answer is to be a ModelStreamInferResponse
    cdef public object trace          # a Trace, or None as for most
    cdef readonly int64_t taken_ns
    cdef public int64_t run_ns

    cdef int hold(self, owner) except -1


cdef str text_of(Span name)
cdef str shown(Span name)
cpdef Request decode(bytes body)
