"""The check of a Request against a Signature.

Everything a client can get wrong about a tensor is found here, before anything is queued, so that
later only the session itself can fail a batch.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport malloc
from libc.string cimport memcpy

from inferd._native.absent cimport leave_out
from inferd._native.choose cimport choose_outputs
from inferd._native.contents cimport contents_field, materialise, typed_size
from inferd._native.datatype cimport BYTES, NO_DATATYPE, element_size
from inferd._native.datatype import name_of
from inferd._native.region cimport Regions, read_place
from inferd._native.reshape cimport reshape_inputs
from inferd._native.signature cimport Signature, TensorSpec, near_input
from inferd._native.span cimport Span, WIRE_OK, is_utf8, span_equals, span_length
from inferd._native.wire cimport (
    BAD_FINAL_RESPONSE, BAD_PRIORITY, BAD_SEQUENCE_END, BAD_SEQUENCE_ID, BAD_SEQUENCE_START, BAD_TIMEOUT, BOUND,
    Request, Tensor, shown,
)

from inferd.errors import InvalidRequest, NotOffered

cdef extern from *:
    """
    static inline int inferd_multiply(int64_t a, int64_t b, int64_t* out) {
        return __builtin_mul_overflow(a, b, out);
    }
    """
    bint multiply_overflows "inferd_multiply"(int64_t a, int64_t b, int64_t* out) noexcept nogil


cdef str shape_text(const int64_t* dims, int rank):
    return "[" + ", ".join([str(dims[k]) for k in range(rank)]) + "]"


cdef enum:
    # What a request that runs alone counts as in the queue. A shape with a 0 in it may claim any number of rows.
    MOST_ROWS_APART = 0x7FFFFFFF


def bind(Signature signature not None, Request request not None, Regions regions=None) -> None:
    """Check a request and make it ready to be queued: inputs in the model's order, each as raw bytes.

    `regions` is the shared memory that its tensors may lie in; it keeps what it uses of it. Raises InvalidRequest
    naming the tensor or the parameter, UnknownRegion, or NotOffered for sequences, and for shared memory without
    `regions`. A request is bound once, whatever comes of it: ValueError for a second time.
    """
    bind_request(signature, request, regions)


cdef int bind_request(Signature s, Request r, Regions regions) except -1:
    cdef int i, found
    if r.signature is not None:
        raise ValueError("bind: a request was bound twice")
    r.signature = s
    if r.parameter_faults:
        refuse_parameter(r)
    if r.in_sequence:
        raise NotOffered(
            f"model '{s.model}' has no sequence batching; send the request without sequence_id, "
            "sequence_start and sequence_end"
        )
    if r.tensor_count != s.input_count:
        leave_out(s, r)
    assign_raw(r, regions)
    for i in range(s.input_count):
        found = find(s, r, i)
        if found != i:
            r.tensors[i], r.tensors[found] = r.tensors[found], r.tensors[i]
        if not r.tensors[i].absent:
            check_type(s, i, &r.tensors[i])
            check_shape(s, r, i, &r.tensors[i])
    check_rows(s, r)
    for i in range(s.input_count):
        if r.tensors[i].in_shared_memory:
            place_input(s, r, i, &r.tensors[i], regions)
        if not r.tensors[i].absent:
            check_elements(s, r, i, &r.tensors[i])
    materialise_inputs(s, r)
    for i in range(s.input_count):
        if s.inputs[i].datatype == BYTES:
            check_strings(s, r, i, &r.tensors[i])
    choose_outputs(s, r, regions)
    if s.reshapes_inputs:
        reshape_inputs(s, r)
    hash_shape(s, r)
    r.state = BOUND
    return 0


cdef int refuse_parameter(Request r) except -1:
    """A parameter that the server reads has another type than the protocol gives it: say so, do not guess."""
    if r.parameter_faults & BAD_TIMEOUT:
        raise InvalidRequest("parameter 'timeout' is not an int64 of at least 0, in microseconds")
    if r.parameter_faults & BAD_PRIORITY:
        raise InvalidRequest("parameter 'priority' is neither an int64 of at least 0 nor a uint64")
    if r.parameter_faults & BAD_SEQUENCE_ID:
        raise InvalidRequest("parameter 'sequence_id' is neither an integer nor a string")
    if r.parameter_faults & BAD_SEQUENCE_START:
        raise InvalidRequest("parameter 'sequence_start' is not a bool")
    if r.parameter_faults & BAD_SEQUENCE_END:
        raise InvalidRequest("parameter 'sequence_end' is not a bool")
    if r.parameter_faults & BAD_FINAL_RESPONSE:
        raise InvalidRequest("parameter 'triton_enable_empty_final_response' is not a bool")
    raise InvalidRequest(f"parameter {shown(r.unknown_triton)} is not known; names that begin with triton_ are reserved")


cdef int assign_raw(Request r, Regions regions) except -1:
    """Entry k of raw_input_contents belongs to the k-th input as sent that is not in shared memory; raw and typed
    contents do not mix.
    """
    cdef int k, shared = 0, sent = r.tensor_count - r.absent_count  # those that are absent come last
    for k in range(sent):
        if r.tensors[k].in_shared_memory:
            if regions is None:
                raise NotOffered(f"input {shown(r.tensors[k].name)} is in shared memory, which this server does not offer")
            shared += 1
            if r.tensors[k].kinds:
                raise InvalidRequest(f"input {shown(r.tensors[k].name)} is in shared memory and has typed contents; use one of them")
        if r.raw_count and r.tensors[k].kinds:
            raise InvalidRequest(
                f"input {shown(r.tensors[k].name)} has typed contents although the request has raw_input_contents; use one of them"
            )
    if shared:
        return assign_around(r, sent, sent - shared)
    if r.raw_count and r.raw_count != sent:
        raise InvalidRequest(
            f"raw_input_contents has {r.raw_count} entries for {sent} inputs"
            + (f" (the first without one is {shown(r.tensors[r.raw_count].name)})" if r.raw_count < sent else "")
        )
    for k in range(r.raw_count):
        r.tensors[k].data = r.raw[k].at
        r.tensors[k].nbytes = span_length(r.raw[k])
    return 0


cdef int assign_around(Request r, int sent, int expected) except -1:
    """The same where some inputs are in shared memory."""
    cdef int k, next_raw = 0
    if r.raw_count and r.raw_count != expected:
        raise InvalidRequest(
            f"raw_input_contents has {r.raw_count} entries for {expected} inputs that are not in shared memory"
        )
    for k in range(sent if r.raw_count else 0):
        if not r.tensors[k].in_shared_memory:
            r.tensors[k].data = r.raw[next_raw].at
            r.tensors[k].nbytes = span_length(r.raw[next_raw])
            next_raw += 1
    return 0


cdef int place_input(Signature s, Request r, int i, Tensor* t, Regions regions) except -1:
    """Find the input's bytes in shared memory. Strings are copied: what has been checked must not change any more."""
    cdef bytes copy
    region = regions.place(&t.place, t.body, 4, f"input '{input_name(s, i)}'")
    t.nbytes = <Py_ssize_t>t.place.nbytes
    if t.place.of_gpu != NULL:
        if t.datatype == BYTES:
            raise InvalidRequest(f"input '{input_name(s, i)}' is BYTES, which cannot be in memory of a GPU")
        r.on_gpu = True
    if t.datatype == BYTES:
        r.nbytes += t.nbytes  # for this bound; all are counted below
        if r.nbytes > regions.most_string_nbytes:
            raise InvalidRequest(
                f"input '{input_name(s, i)}' brings the strings of this request in shared memory to {r.nbytes} bytes; "
                f"they are copied, and may be at most {regions.most_string_nbytes} as in a message (grpc.max_message_bytes)"
            )
        copy = PyBytes_FromStringAndSize(NULL, t.nbytes)
        t.data = <const uint8_t*>PyBytes_AS_STRING(copy)
        r.hold(copy)
        if not read_place(&t.place, <uint8_t*>PyBytes_AS_STRING(copy)):
            raise InvalidRequest(f"the shared memory of input '{input_name(s, i)}' has become smaller")
    else:
        r.hold(region)
    return 0


cdef int find(Signature s, Request r, int i) except -1:
    """The place, at or after i, of the tensor that is the model's input i."""
    cdef int k
    for k in range(i, r.tensor_count):
        if span_equals(r.tensors[k].name, s.inputs[i].name, s.inputs[i].name_length):
            return k
    for k in range(i, r.tensor_count):
        refuse_unknown(s, r, k)
    raise InvalidRequest(f"model '{s.model}' needs input '{input_name(s, i)}', which the request does not have")


cdef int refuse_unknown(Signature s, Request r, int k) except -1:
    """Raise if tensor k is none of the model's inputs, or repeats one that is placed already."""
    cdef int i, placed
    for i in range(s.input_count):
        if span_equals(r.tensors[k].name, s.inputs[i].name, s.inputs[i].name_length):
            for placed in range(k):
                if span_equals(r.tensors[placed].name, s.inputs[i].name, s.inputs[i].name_length):
                    raise InvalidRequest(f"input {shown(r.tensors[k].name)} appears more than once")
            return 0
    raise InvalidRequest(f"model '{s.model}' has no input {shown(r.tensors[k].name)}{near_input(s, r.tensors[k].name)}")


cdef str input_name(Signature s, int i):
    return s.inputs[i].name[:s.inputs[i].name_length].decode()


cdef int check_type(Signature s, int i, Tensor* t) except -1:
    if t.datatype == s.inputs[i].datatype:
        return 0
    expected = name_of(s.inputs[i].datatype)
    if t.datatype == NO_DATATYPE:
        raise InvalidRequest(f"input '{input_name(s, i)}' has the unknown datatype {shown(t.datatype_name)}; expected {expected}")
    raise InvalidRequest(f"input '{input_name(s, i)}' has datatype {name_of(t.datatype)}; model '{s.model}' expects {expected}")


cdef int check_shape(Signature s, Request r, int i, Tensor* t) except -1:
    cdef const int64_t* dims = r.dims + t.dims_at
    cdef TensorSpec* spec = &s.inputs[i]
    cdef int k
    cdef bint fits = t.rank == spec.rank
    for k in range(t.rank):
        if dims[k] < 0:
            raise InvalidRequest(f"input '{input_name(s, i)}' has a negative dimension in its shape {shape_text(dims, t.rank)}")
        if fits and spec.dims[k] >= 0 and dims[k] != spec.dims[k]:
            fits = False
    if not fits:
        raise InvalidRequest(
            f"input '{input_name(s, i)}' has shape {shape_text(dims, t.rank)}; "
            f"model '{s.model}' expects {shape_text(spec.dims, spec.rank)}"
        )
    return 0


cdef int check_rows(Signature s, Request r) except -1:
    """Count the rows, and refuse or set apart a request whose rows do not fit into a batch."""
    cdef int i, first = 0
    cdef int64_t rows, most
    r.rows = 1
    if not s.batched or not s.input_count:
        return 0
    while r.tensors[first].absent:
        first += 1
        if first == s.input_count:  # what there is does not say how many rows
            r.apart = True
            return 0
    r.rows = most = r.dims[r.tensors[first].dims_at]
    for i in range(first, s.input_count):
        if r.tensors[i].absent:
            continue
        rows = r.dims[r.tensors[i].dims_at]
        most = max(most, rows)
        if rows != r.rows:
            if not s.broadcasts:
                raise InvalidRequest(
                    f"input '{input_name(s, i)}' has {rows} rows but input '{input_name(s, first)}' has {r.rows}; "
                    "all inputs of a request share their first dimension"
                )
            r.apart = True
        if rows == 0:
            if not s.lenient:
                raise InvalidRequest(f"input '{input_name(s, i)}' has no rows; a request brings at least one")
            r.apart = True
        if rows > s.max_rows:
            if not s.lenient:
                raise InvalidRequest(
                    f"input '{input_name(s, i)}' has {rows} rows; model '{s.model}' takes at most {s.max_rows} in one request"
                )
            r.apart = True
    if r.apart:
        r.rows = min(max(most, 1), MOST_ROWS_APART)
    return 0


cdef int check_elements(Signature s, Request r, int i, Tensor* t) except -1:
    """The number of bytes or elements must be what the shape says. Nothing is allocated for a shape alone."""
    cdef int64_t elements = 1
    cdef int k, kind
    cdef Py_ssize_t size = element_size(t.datatype)
    cdef int64_t expected = 0
    cdef bint zero = False
    for k in range(t.rank):
        zero |= r.dims[t.dims_at + k] == 0
    if zero:
        elements = 0
    else:
        for k in range(t.rank):
            if multiply_overflows(elements, r.dims[t.dims_at + k], &elements):
                refuse_uncountable(s, r, i, t)
    if multiply_overflows(elements, size if size else 4, &expected):
        refuse_uncountable(s, r, i, t)
    if r.raw_count or t.in_shared_memory:
        if size and t.nbytes != expected:
            raise InvalidRequest(
                f"input '{input_name(s, i)}' of datatype {name_of(t.datatype)} and shape {shape_text(r.dims + t.dims_at, t.rank)} "
                f"takes {expected} bytes but has {t.nbytes}"
            )
        if not size:
            check_bytes_prefixes(s, r, i, t, elements)
        return 0
    kind = contents_field(t.datatype)
    if t.kinds and t.kinds != (<uint64_t>1 << kind if kind else 0):
        raise InvalidRequest(
            f"input '{input_name(s, i)}' of datatype {name_of(t.datatype)} has typed contents of another type"
            + ("" if kind else "; this datatype travels only in raw_input_contents")
        )
    if t.typed_count != elements:
        raise InvalidRequest(
            f"input '{input_name(s, i)}' of shape {shape_text(r.dims + t.dims_at, t.rank)} "
            f"takes {elements} elements but has {t.typed_count}"
            + ("; no data was sent for it" if not t.kinds else "")
        )
    return 0


cdef int refuse_uncountable(Signature s, Request r, int i, Tensor* t) except -1:
    raise InvalidRequest(
        f"input '{input_name(s, i)}' has more elements than memory can hold: its shape is {shape_text(r.dims + t.dims_at, t.rank)}"
    )


cdef int check_bytes_prefixes(Signature s, Request r, int i, Tensor* t, int64_t elements) except -1:
    """Raw BYTES: per element a 4-byte little-endian length, then that many bytes, to the very end."""
    cdef const uint8_t* at = t.data
    cdef const uint8_t* end = t.data + t.nbytes
    cdef int64_t seen = 0
    cdef uint32_t length = 0
    while at != end:
        if end - at < 4:
            raise InvalidRequest(f"input '{input_name(s, i)}' of datatype BYTES ends inside the length of element {seen}")
        memcpy(&length, at, 4)
        at += 4
        if <uint64_t>length > <uint64_t>(end - at):
            raise InvalidRequest(
                f"element {seen} of input '{input_name(s, i)}' claims {length} bytes but {end - at} are left"
            )
        at += length
        seen += 1
    if seen != elements:
        raise InvalidRequest(
            f"input '{input_name(s, i)}' of shape {shape_text(r.dims + t.dims_at, t.rank)} takes {elements} elements but has {seen}"
        )
    return 0


cdef int materialise_inputs(Signature s, Request r) except -1:
    """Turn typed contents into raw ones, in one allocation of the request's own."""
    cdef int i
    cdef Py_ssize_t total = 0, size
    cdef uint8_t* at
    cdef bint out_of_range = False
    if not r.raw_count and s.input_count:
        for i in range(s.input_count):
            if not r.tensors[i].in_shared_memory:
                total += (typed_size(&r.tensors[i]) + 7) & ~7
        r.typed = <uint8_t*>malloc(<size_t>max(total, 1))
        if r.typed == NULL:
            raise MemoryError
        at = r.typed
        for i in range(s.input_count):
            if r.tensors[i].in_shared_memory or r.tensors[i].absent:
                continue
            size = typed_size(&r.tensors[i])
            if materialise(&r.tensors[i], at, at + size, &out_of_range) != WIRE_OK:
                raise InvalidRequest(f"input '{input_name(s, i)}' has malformed typed contents")
            if out_of_range:
                raise InvalidRequest(f"input '{input_name(s, i)}' has a value out of range for {name_of(r.tensors[i].datatype)}")
            r.tensors[i].data = at
            r.tensors[i].nbytes = size
            at += (size + 7) & ~7
    r.nbytes = 0
    for i in range(s.input_count):
        r.nbytes += r.tensors[i].nbytes
    return 0


cdef int check_strings(Signature s, Request r, int i, Tensor* t) except -1:
    """ONNX strings are UTF-8; the prefixes have been checked."""
    cdef const uint8_t* at = t.data
    cdef const uint8_t* end = t.data + t.nbytes
    cdef uint32_t length = 0
    cdef int64_t seen = 0
    cdef Span element
    while at != end:
        memcpy(&length, at, 4)
        element.at = at + 4
        element.end = element.at + length
        if not is_utf8(element):
            raise InvalidRequest(
                f"element {seen} of input '{input_name(s, i)}' is not UTF-8, which strings of an ONNX model must be"
            )
        at = element.end
        seen += 1
    return 0


cdef void hash_shape(Signature s, Request r) noexcept nogil:
    """A hash over the dimensions that requests of one batch must share (FNV-1a over 64-bit words)."""
    cdef uint64_t value = 14695981039346656037U
    cdef int i, k
    r.shape_hash = value
    if r.apart:
        r.shape_hash ^= <uint64_t><uintptr_t><void*>r  # shares its group with nobody, so spread those groups
        return
    if r.on_gpu:
        r.shape_hash = value = ~value
    if s.uniform:
        return
    for i in range(s.input_count):
        if r.tensors[i].absent:
            value = (value ^ <uint64_t>-1) * 1099511628211U
        for k in range(1 if s.batched else 0, r.tensors[i].rank):
            value = (value ^ <uint64_t>r.dims[r.tensors[i].dims_at + k]) * 1099511628211U
    r.shape_hash = value
