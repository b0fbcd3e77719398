"""ModelInferRequest bytes -> Request: a view of borrowed spans. No protobuf objects, no object per tensor.

Accepts and refuses what protobuf's own parser does (proto3, UTF-8 checked), within MAX_TENSORS and
MAX_RANK. It knows the message, not the model: what a model accepts is the Signature's business.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memset

from inferd._native.contents cimport CONTENTS_KINDS, count_contents
from inferd._native.datatype cimport datatype_of
from inferd._native.live cimport INFERD_DEBUG, REQUESTS, count
from inferd._native.parameter cimport (
    PARAMETER_BOOL, PARAMETER_INT64, PARAMETER_STRING, PARAMETER_UINT64,
    Parameter, has_key, names_shared_memory, read_parameter,
)
from inferd._native.region cimport read_place
from inferd._native.span cimport (
    LENGTH, VARINT, Span, WireStatus,
    WIRE_BAD_TAG, WIRE_BAD_UTF8, WIRE_NO_MEMORY, WIRE_OK, WIRE_OVERLONG, WIRE_TOO_DEEP, WIRE_TOO_MANY, WIRE_TRUNCATED,
    read_length, read_string, read_tag, read_varint, skip_field, span_length,
)

from inferd.errors import InvalidRequest


cdef enum:
    # protobuf's parsers refuse messages of 2 GiB and more.
    MAX_MESSAGE = 0x7FFFFFFF


cdef str why_malformed(WireStatus status):
    if status == WIRE_TRUNCATED:
        return "a field runs past the end of the bytes that hold it"
    if status == WIRE_OVERLONG:
        return "a varint is longer than ten bytes"
    if status == WIRE_BAD_TAG:
        return "a field tag is not valid"
    if status == WIRE_BAD_UTF8:
        return "a string is not UTF-8"
    if status == WIRE_TOO_DEEP:
        return "fields are nested too deeply"
    if status == WIRE_TOO_MANY:
        return f"it has more than {MAX_TENSORS} inputs, outputs or raw entries, or a shape of more than {MAX_RANK} dimensions"
    return "memory for its description could not be had"


cdef str shown(Span name):
    """A name from the wire, safe to put into a message: quoted, escaped, short."""
    # 260 bytes hold more than 64 characters whatever these are, so a cut is always seen.
    cdef Py_ssize_t length = min(span_length(name), 260)
    text = name.at[:length].decode("utf-8", "replace") if length else ""
    return repr(text if len(text) <= 64 else text[:64] + "...")


cdef str text_of(Span name):
    return name.at[:span_length(name)].decode("utf-8") if span_length(name) else ""


@cython.final
cdef class Request:
    """One ModelInferRequest, decoded in place.

    Owns the message bytes; everything it describes is borrowed from them and dies with it. Made by
    ``decode``; ``bind`` must accept it before it may be queued.
    """

    def __cinit__(self):
        self.tensors = self.inline_tensors
        self.tensor_room = 3
        self.dims = self.inline_dims
        self.dim_room = 16
        self.raw = self.inline_raw
        self.raw_room = 3
        self.wanted = self.inline_wanted
        self.wanted_room = 2
        if INFERD_DEBUG:
            count(REQUESTS, 1)

    def __dealloc__(self):
        if self.tensors != self.inline_tensors:
            free(self.tensors)
        if self.dims != self.inline_dims:
            free(self.dims)
        if self.raw != self.inline_raw:
            free(self.raw)
        if self.wanted != self.inline_wanted:
            free(self.wanted)
        if self.chosen != self.inline_chosen:
            free(self.chosen)
        free(self.typed)
        if INFERD_DEBUG:
            count(REQUESTS, -1)

    cdef int hold(self, owner) except -1:
        """Keep an object that the spans of a tensor borrow from."""
        if self.held is None:
            self.held = []
        self.held.append(owner)
        return 0

    @property
    def model_name(self) -> str:
        """The model asked for."""
        return text_of(self.model_name_span)

    @property
    def model_version(self) -> str:
        """The version asked for; empty when the server may choose."""
        return text_of(self.model_version_span)

    @property
    def id(self) -> str:
        """The client's id for this request; echoed in the answer."""
        return text_of(self.id_span)

    def inputs(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """Name, datatype and shape of each input as sent; once bound in the model's order and of the shapes it has.

        Not for the hot path.
        """
        cdef int i, k
        found = []
        for i in range(self.tensor_count):
            if self.tensors[i].absent:
                continue
            shape = tuple([self.dims[self.tensors[i].dims_at + k] for k in range(self.tensors[i].rank)])
            found.append((text_of(self.tensors[i].name), text_of(self.tensors[i].datatype_name), shape))
        return found

    def outputs(self) -> list[str]:
        """Names of the outputs asked for; empty means all. Not for the hot path."""
        return [text_of(self.wanted[i].name) for i in range(self.wanted_count)]

    def raw_contents(self) -> list[bytes]:
        """The raw entries as sent. Not for the hot path."""
        return [self.raw[i].at[:span_length(self.raw[i])] for i in range(self.raw_count)]

    def tensor_bytes(self, int index) -> bytes:
        """The bytes of one bound input, little-endian and row-major. Not for the hot path."""
        cdef bytes copy
        if not 0 <= index < self.tensor_count:
            raise IndexError(index)
        if self.tensors[index].data == NULL and self.tensors[index].nbytes:
            copy = PyBytes_FromStringAndSize(NULL, self.tensors[index].nbytes)
            if not read_place(&self.tensors[index].place, <uint8_t*>PyBytes_AS_STRING(copy)):
                raise ValueError("the shared memory has become smaller")
            return copy
        return (<const char*>self.tensors[index].data)[:self.tensors[index].nbytes]


cdef void* with_room(void* items, void* inline_items, int used, int* room, size_t item_size) noexcept nogil:
    """The array with room for one more item, moved if it must be; NULL, and all as it was, without memory.

    The inline array is left behind the first time.
    """
    cdef void* larger
    if used < room[0]:
        return items
    larger = realloc(NULL if items == inline_items else items, 2 * <size_t>room[0] * item_size)
    if larger == NULL:
        return NULL
    if items == inline_items:
        memcpy(larger, inline_items, <size_t>used * item_size)
    room[0] *= 2
    return larger


cdef WireStatus read_dims(Request r, Tensor* t, Span values) noexcept nogil:
    cdef uint64_t value = 0
    cdef int64_t* dims
    cdef WireStatus status
    while values.at != values.end:
        status = read_varint(&values, &value)
        if status != WIRE_OK:
            return status
        if t.rank == MAX_RANK:
            return WIRE_TOO_MANY
        dims = <int64_t*>with_room(r.dims, r.inline_dims, r.dim_count, &r.dim_room, sizeof(int64_t))
        if dims == NULL:
            return WIRE_NO_MEMORY
        r.dims = dims
        r.dims[r.dim_count] = <int64_t>value
        r.dim_count += 1
        t.rank += 1
    return WIRE_OK


cdef WireStatus read_tensor(Request r, Tensor* t, Span s) noexcept nogil:
    """One ModelInferRequest.InferInputTensor."""
    cdef uint32_t field = 0, wire_type = 0
    cdef int64_t counts[CONTENTS_KINDS]
    cdef uint64_t value = 0
    cdef const uint8_t* before
    cdef Parameter parameter
    cdef Span payload
    cdef int kind
    cdef WireStatus status
    memset(t, 0, sizeof(Tensor))
    memset(counts, 0, sizeof(counts))
    t.body = s
    t.dims_at = r.dim_count
    while s.at != s.end:
        status = read_tag(&s, &field, &wire_type)
        if status != WIRE_OK:
            return status
        if field == 1 and wire_type == LENGTH:
            status = read_string(&s, &t.name)
        elif field == 2 and wire_type == LENGTH:
            status = read_string(&s, &t.datatype_name)
        elif field == 3 and wire_type == LENGTH:
            status = read_length(&s, &payload)
            if status == WIRE_OK:
                status = read_dims(r, t, payload)
        elif field == 3 and wire_type == VARINT:
            before = s.at
            status = read_varint(&s, &value)
            if status == WIRE_OK:
                payload.at = before
                payload.end = s.at
                status = read_dims(r, t, payload)
        elif field == 4 and wire_type == LENGTH:
            status = read_length(&s, &payload)
            if status == WIRE_OK:
                status = read_parameter(payload, &parameter, 2)
                if status == WIRE_OK and names_shared_memory(&parameter):
                    t.in_shared_memory = True
        elif field == 5 and wire_type == LENGTH:
            status = read_length(&s, &payload)
            if status == WIRE_OK:
                status = count_contents(payload, counts, 2)
        else:
            status = skip_field(&s, field, wire_type, 1)
        if status != WIRE_OK:
            return status
    t.datatype = datatype_of(t.datatype_name)
    for kind in range(1, CONTENTS_KINDS):
        if counts[kind]:
            t.kinds |= <uint64_t>1 << kind
            t.typed_count = counts[kind]
    return WIRE_OK


cdef WireStatus read_wanted(Wanted* w, Span s) noexcept nogil:
    """One ModelInferRequest.InferRequestedOutputTensor."""
    cdef uint32_t field = 0, wire_type = 0
    cdef Parameter parameter
    cdef Span payload
    cdef WireStatus status
    memset(w, 0, sizeof(Wanted))
    w.body = s
    while s.at != s.end:
        status = read_tag(&s, &field, &wire_type)
        if status != WIRE_OK:
            return status
        if field == 1 and wire_type == LENGTH:
            status = read_string(&s, &w.name)
        elif field == 2 and wire_type == LENGTH:
            status = read_length(&s, &payload)
            if status == WIRE_OK:
                status = read_parameter(payload, &parameter, 2)
                if status == WIRE_OK and has_key(&parameter, b"classification", 14):
                    # Clients say 0 for none.
                    w.classes = <int64_t>parameter.number if parameter.kind == PARAMETER_INT64 else -1
                if status == WIRE_OK and names_shared_memory(&parameter):
                    w.in_shared_memory = True
        else:
            status = skip_field(&s, field, wire_type, 1)
        if status != WIRE_OK:
            return status
    return WIRE_OK


cdef void judge(Request r, ParameterFault fault, bint fine) noexcept nogil:
    r.parameter_faults = r.parameter_faults & ~<int>fault if fine else r.parameter_faults | fault


cdef void note_parameter(Request r, Parameter* p) noexcept nogil:
    """Keep what the server itself reads of the request's parameters; the last entry of a key wins."""
    cdef bint is_signed = p.kind == PARAMETER_INT64 and <int64_t>p.number >= 0
    if has_key(p, b"timeout", 7):
        r.timeout_us = <int64_t>p.number if is_signed else 0
        judge(r, BAD_TIMEOUT, is_signed)
    elif has_key(p, b"priority", 8):
        r.priority = p.number if is_signed or p.kind == PARAMETER_UINT64 else 0
        judge(r, BAD_PRIORITY, is_signed or p.kind == PARAMETER_UINT64)
    elif has_key(p, b"sequence_id", 11):
        if p.kind == PARAMETER_STRING:
            r.in_sequence = span_length(p.text) != 0
        else:
            r.in_sequence = (p.kind == PARAMETER_INT64 or p.kind == PARAMETER_UINT64) and p.number != 0
        judge(r, BAD_SEQUENCE_ID, p.kind == PARAMETER_STRING or p.kind == PARAMETER_INT64 or p.kind == PARAMETER_UINT64)
    elif has_key(p, b"sequence_start", 14):
        judge(r, BAD_SEQUENCE_START, p.kind == PARAMETER_BOOL)
    elif has_key(p, b"sequence_end", 12):
        judge(r, BAD_SEQUENCE_END, p.kind == PARAMETER_BOOL)
    elif has_key(p, b"triton_enable_empty_final_response", 34):
        judge(r, BAD_FINAL_RESPONSE, p.kind == PARAMETER_BOOL)
    elif span_length(p.key) >= 7 and memcmp(p.key.at, b"triton_", 7) == 0:
        r.parameter_faults |= UNKNOWN_TRITON
        r.unknown_triton = p.key


cdef WireStatus add_input(Request r, Span s) noexcept nogil:
    cdef Tensor* tensors
    cdef WireStatus status
    if r.tensor_count == MAX_TENSORS:
        return WIRE_TOO_MANY
    tensors = <Tensor*>with_room(r.tensors, r.inline_tensors, r.tensor_count, &r.tensor_room, sizeof(Tensor))
    if tensors == NULL:
        return WIRE_NO_MEMORY
    r.tensors = tensors
    r.reading_input = True
    status = read_tensor(r, &r.tensors[r.tensor_count], s)
    if status == WIRE_OK:
        r.reading_input = False
        r.tensor_count += 1
    return status


cdef WireStatus add_wanted(Request r, Span s) noexcept nogil:
    cdef Wanted* wanted
    cdef WireStatus status
    if r.wanted_count == MAX_TENSORS:
        return WIRE_TOO_MANY
    wanted = <Wanted*>with_room(r.wanted, r.inline_wanted, r.wanted_count, &r.wanted_room, sizeof(Wanted))
    if wanted == NULL:
        return WIRE_NO_MEMORY
    r.wanted = wanted
    status = read_wanted(&r.wanted[r.wanted_count], s)
    if status == WIRE_OK:
        r.wanted_count += 1
    return status


cdef WireStatus add_raw(Request r, Span s) noexcept nogil:
    cdef Span* raw
    if r.raw_count == MAX_TENSORS:
        return WIRE_TOO_MANY
    raw = <Span*>with_room(r.raw, r.inline_raw, r.raw_count, &r.raw_room, sizeof(Span))
    if raw == NULL:
        return WIRE_NO_MEMORY
    r.raw = raw
    r.raw[r.raw_count] = s
    r.raw_count += 1
    return WIRE_OK


cdef WireStatus read_request(Request r, Span s) noexcept nogil:
    """Walk the whole message. On failure r.reading_input says whether tensor number r.tensor_count is at fault."""
    cdef uint32_t field = 0, wire_type = 0
    cdef Parameter parameter
    cdef Span payload
    cdef WireStatus status
    while s.at != s.end:
        status = read_tag(&s, &field, &wire_type)
        if status != WIRE_OK:
            return status
        if wire_type != LENGTH or field > 7:
            status = skip_field(&s, field, wire_type, 0)
        elif field == 1:
            status = read_string(&s, &r.model_name_span)
        elif field == 2:
            status = read_string(&s, &r.model_version_span)
        elif field == 3:
            status = read_string(&s, &r.id_span)
        else:
            status = read_length(&s, &payload)
            if status != WIRE_OK:
                return status
            if field == 4:
                status = read_parameter(payload, &parameter, 1)
                if status == WIRE_OK:
                    note_parameter(r, &parameter)
            elif field == 5:
                status = add_input(r, payload)
            elif field == 6:
                status = add_wanted(r, payload)
            else:
                status = add_raw(r, payload)
        if status != WIRE_OK:
            return status
    return WIRE_OK


cpdef Request decode(bytes body):
    """Decode one ModelInferRequest. The result keeps `body` alive and borrows from it.

    Raises InvalidRequest, naming the input at fault where there is one.
    """
    cdef Request r
    cdef Span s, name
    cdef WireStatus status
    if len(body) > MAX_MESSAGE:
        raise InvalidRequest(f"the ModelInferRequest has {len(body)} bytes; a message holds at most {MAX_MESSAGE}")
    r = Request.__new__(Request)
    r.body = body
    s.at = <const uint8_t*><const char*>body
    s.end = s.at + len(body)
    status = read_request(r, s)
    if status == WIRE_OK:
        return r
    why = why_malformed(status)
    if not r.reading_input:
        raise InvalidRequest(f"the ModelInferRequest is malformed: {why}")
    name = r.tensors[r.tensor_count].name
    called = shown(name) if span_length(name) else "without a readable name"
    raise InvalidRequest(f"input {called} (number {r.tensor_count}) of the ModelInferRequest is malformed: {why}")
