"""What a model accepts and answers."""

from libc.stdint cimport int64_t, uint8_t

from inferd._native.datatype cimport Datatype
from inferd._native.span cimport Span
from inferd._native.wire cimport Request


cdef struct TensorSpec:
    const uint8_t* name       # borrowed from the Signature's names
    Py_ssize_t name_length
    Datatype datatype
    bint optional             # a request may leave it out: the model has a value of its own
    int rank                  # with the batch axis, if there is one
    int64_t* dims             # as on the wire; owned by the Signature; -1 = any; dims[0] = -1 on a batch axis
    int model_rank            # of the shape that the model has, where that is another one
    int64_t* model_dims       # owned by the Signature; NULL = the same as on the wire


cdef class Signature:
    cdef readonly str model
    cdef readonly str version
    cdef readonly bint batched
    cdef readonly bint lenient         # no rows, or more than max_rows, run alone instead of being refused
    cdef readonly bint broadcasts      # so do inputs whose first dimensions differ
    cdef readonly int64_t max_rows     # of one request; 1 for a model without a batch axis
    cdef readonly bint uniform         # no dimension but the batch axis may vary, and nothing is left out: one group
    cdef int optional_count            # of the inputs
    cdef bint reshapes_inputs          # some input has model_dims
    cdef bint reshapes_outputs         # some output has
    cdef TensorSpec* inputs
    cdef int input_count
    cdef TensorSpec* outputs
    cdef int output_count
    cdef list names                    # owns the bytes that TensorSpec.name borrows
    cdef bytes reply_head              # model_name and model_version fields of every answer
    cdef list reply_outputs            # per output: name and datatype fields of its InferOutputTensor
    cdef list reply_classes            # per output: the same where its best classes are answered, as BYTES
    cdef list labels                   # per output: Labels or None


cdef str near_input(Signature signature, Span name)
cdef str near_output(Signature signature, Span name)
cdef bint same_shape(Signature signature, Request a, Request b) noexcept nogil
cdef bytes string_field(int field, bytes payload)
