"""ModelInferRequest bytes -> Request: a view of borrowed spans. No protobuf objects, no object per tensor.

Accepts and refuses what protobuf's own parser does (proto3, UTF-8 checked), within MAX_TENSORS and
MAX_RANK. It knows the message, not the model: what a model accepts is the Signature's business.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from inferd._native.datatype cimport datatype_of
from inferd._native.live cimport INFERD_DEBUG, REQUESTS, count
from inferd._native.span cimport (
    FIXED32, FIXED64, LENGTH, VARINT, Span, WireStatus,
    WIRE_BAD_TAG, WIRE_BAD_UTF8, WIRE_NO_MEMORY, WIRE_OK, WIRE_OVERLONG, WIRE_TOO_DEEP, WIRE_TOO_MANY, WIRE_TRUNCATED,
    read_length, read_string, read_tag, read_varint, skip_field, span_equals, span_length,
)

from inferd.errors import InvalidRequest


cdef enum:
    # InferTensorContents has fields 1 to 8; CONTENTS_KINDS sizes arrays indexed by field number.
    CONTENTS_KINDS = 9

cdef str why_malformed(WireStatus status):
    if status == WIRE_TRUNCATED:
        return "a field runs past the end of the bytes that hold it"
    if status == WIRE_OVERLONG:
        return "a varint is longer than 64 bits"
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
    cdef Py_ssize_t length = span_length(name)
    text = name.at[:min(length, 256)].decode("utf-8", "replace") if length else ""
    quoted = repr(text if len(text) <= 64 else text[:64] + "...")
    return quoted


cdef str text_of(Span name):
    return name.at[:span_length(name)].decode("utf-8") if span_length(name) else ""


cdef class Request:
    """One ModelInferRequest, decoded in place.

    Owns the message bytes; everything it describes is borrowed from them and dies with it. Made by
    ``decode``; ``Signature.bind`` must accept it before it may be queued.
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

    @property
    def queue_ns(self) -> int:
        """Nanoseconds between arrival in the queue and the cut of the batch."""
        return self.taken_ns - self.arrived_ns

    def inputs(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """Name, datatype and shape of each input as sent (in the model's order once bound). Not for the hot path."""
        cdef int i, k
        found = []
        for i in range(self.tensor_count):
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
        if not 0 <= index < self.tensor_count:
            raise IndexError(index)
        return (<const char*>self.tensors[index].data)[:self.tensors[index].nbytes]


cdef WireStatus grow(void** items, void* inline_items, int used, int* room, size_t item_size) noexcept nogil:
    """Make room for one more item. The inline array is left behind the first time."""
    cdef void* larger
    if used < room[0]:
        return WIRE_OK
    larger = realloc(NULL if items[0] == inline_items else items[0], 2 * <size_t>room[0] * item_size)
    if larger == NULL:
        return WIRE_NO_MEMORY
    if items[0] == inline_items:
        memcpy(larger, inline_items, <size_t>used * item_size)
    items[0] = larger
    room[0] *= 2
    return WIRE_OK


cdef WireStatus read_dims(Request r, Tensor* t, Span values) noexcept nogil:
    cdef uint64_t value = 0
    cdef WireStatus status
    while values.at != values.end:
        status = read_varint(&values, &value)
        if status != WIRE_OK:
            return status
        if t.rank == MAX_RANK:
            return WIRE_TOO_MANY
        status = grow(<void**>&r.dims, r.inline_dims, r.dim_count, &r.dim_room, sizeof(int64_t))
        if status != WIRE_OK:
            return status
        r.dims[r.dim_count] = <int64_t>value
        r.dim_count += 1
        t.rank += 1
    return WIRE_OK


cdef struct Parameter:
    Span key
    # 0 = not set, else the InferParameter field that is: 1 bool, 2 int64, 3 string, 4 double, 5 uint64
    uint32_t kind
    uint64_t number
    Span text


cdef WireStatus read_parameter_value(Span s, Parameter* p, int depth) noexcept nogil:
    cdef uint32_t field = 0, wire_type = 0
    cdef WireStatus status
    while s.at != s.end:
        status = read_tag(&s, &field, &wire_type)
        if status != WIRE_OK:
            return status
        if (field == 1 or field == 2 or field == 5) and wire_type == VARINT:
            status = read_varint(&s, &p.number)
            p.kind = field
        elif field == 3 and wire_type == LENGTH:
            status = read_string(&s, &p.text)
            p.kind = field
        else:
            status = skip_field(&s, field, wire_type, depth)
            if field == 4 and wire_type == FIXED64:
                p.kind = field
        if status != WIRE_OK:
            return status
    return WIRE_OK


cdef WireStatus read_parameter(Span s, Parameter* p, int depth) noexcept nogil:
    """One entry of a map<string, InferParameter>."""
    cdef uint32_t field = 0, wire_type = 0
    cdef Span value
    cdef WireStatus status
    memset(p, 0, sizeof(Parameter))
    while s.at != s.end:
        status = read_tag(&s, &field, &wire_type)
        if status != WIRE_OK:
            return status
        if field == 1 and wire_type == LENGTH:
            status = read_string(&s, &p.key)
        elif field == 2 and wire_type == LENGTH:
            status = read_length(&s, &value)
            if status == WIRE_OK:
                status = read_parameter_value(value, p, depth + 1)
        else:
            status = skip_field(&s, field, wire_type, depth)
        if status != WIRE_OK:
            return status
    return WIRE_OK


cdef WireStatus count_contents(Span s, int64_t* counts, int depth) noexcept nogil:
    """Check one InferTensorContents message and add its elements to `counts`, indexed by field number."""
    cdef uint32_t field = 0, wire_type = 0
    cdef uint64_t ignored = 0
    cdef Span values
    cdef Py_ssize_t width
    cdef WireStatus status
    while s.at != s.end:
        status = read_tag(&s, &field, &wire_type)
        if status != WIRE_OK:
            return status
        width = 4 if field == 6 else 8
        if 1 <= field <= 5 and wire_type == VARINT:
            status = read_varint(&s, &ignored)
            counts[field] += 1
        elif 1 <= field <= 5 and wire_type == LENGTH:
            status = read_length(&s, &values)
            while status == WIRE_OK and values.at != values.end:
                status = read_varint(&values, &ignored)
                counts[field] += 1
        elif (field == 6 and wire_type == FIXED32) or (field == 7 and wire_type == FIXED64):
            status = skip_field(&s, field, wire_type, depth)
            counts[field] += 1
        elif (field == 6 or field == 7) and wire_type == LENGTH:
            status = read_length(&s, &values)
            if status == WIRE_OK and span_length(values) % width:
                status = WIRE_TRUNCATED
            if status == WIRE_OK:
                counts[field] += span_length(values) // width
        elif field == 8 and wire_type == LENGTH:
            status = read_length(&s, &values)
            counts[field] += 1
        else:
            status = skip_field(&s, field, wire_type, depth)
        if status != WIRE_OK:
            return status
    return WIRE_OK


cdef bint names_shared_memory(Span key) noexcept nogil:
    return (
        span_equals(key, b"shared_memory_region", 20)
        or span_equals(key, b"shared_memory_offset", 20)
        or span_equals(key, b"shared_memory_byte_size", 23)
    )


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
            if status == WIRE_OK and names_shared_memory(parameter.key):
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
            if status == WIRE_OK and span_equals(parameter.key, b"classification", 14):
                w.classification = parameter.number != 0
            if status == WIRE_OK and names_shared_memory(parameter.key):
                w.in_shared_memory = True
        else:
            status = skip_field(&s, field, wire_type, 1)
        if status != WIRE_OK:
            return status
    return WIRE_OK


cdef void note_parameter(Request r, Parameter* p) noexcept nogil:
    """Keep what the server itself reads of the request's parameters; the last entry of a key wins."""
    if span_equals(p.key, b"timeout", 7):
        r.timeout_us = <int64_t>p.number if p.kind == 2 else 0
    elif span_equals(p.key, b"priority", 8):
        r.priority = p.number if p.kind == 2 or p.kind == 5 else 0
    elif span_equals(p.key, b"sequence_id", 11):
        r.in_sequence = span_length(p.text) != 0 if p.kind == 3 else p.number != 0


cdef WireStatus read_request(Request r, Span s, int* at_input) noexcept nogil:
    """Walk the whole message. On failure *at_input is the index of the input at fault, or -1."""
    cdef uint32_t field = 0, wire_type = 0
    cdef Parameter parameter
    cdef Span payload
    cdef WireStatus status
    at_input[0] = -1
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
        elif field == 4:
            status = read_length(&s, &payload)
            if status == WIRE_OK:
                status = read_parameter(payload, &parameter, 1)
            if status == WIRE_OK:
                note_parameter(r, &parameter)
        elif field == 5:
            status = read_length(&s, &payload)
            if status == WIRE_OK and r.tensor_count == MAX_TENSORS:
                status = WIRE_TOO_MANY
            if status == WIRE_OK:
                status = grow(<void**>&r.tensors, r.inline_tensors, r.tensor_count, &r.tensor_room, sizeof(Tensor))
            if status == WIRE_OK:
                at_input[0] = r.tensor_count
                status = read_tensor(r, &r.tensors[r.tensor_count], payload)
            if status == WIRE_OK:
                at_input[0] = -1
                r.tensor_count += 1
        elif field == 6:
            status = read_length(&s, &payload)
            if status == WIRE_OK and r.wanted_count == MAX_TENSORS:
                status = WIRE_TOO_MANY
            if status == WIRE_OK:
                status = grow(<void**>&r.wanted, r.inline_wanted, r.wanted_count, &r.wanted_room, sizeof(Wanted))
            if status == WIRE_OK:
                status = read_wanted(&r.wanted[r.wanted_count], payload)
            if status == WIRE_OK:
                r.wanted_count += 1
        else:
            status = read_length(&s, &payload)
            if status == WIRE_OK and r.raw_count == MAX_TENSORS:
                status = WIRE_TOO_MANY
            if status == WIRE_OK:
                status = grow(<void**>&r.raw, r.inline_raw, r.raw_count, &r.raw_room, sizeof(Span))
            if status == WIRE_OK:
                r.raw[r.raw_count] = payload
                r.raw_count += 1
        if status != WIRE_OK:
            return status
    return WIRE_OK


def decode(bytes body not None) -> Request:
    """Decode one ModelInferRequest. The result keeps `body` alive and borrows from it.

    Raises InvalidRequest, naming the input at fault where there is one.
    """
    cdef Request r = Request.__new__(Request)
    cdef Span s
    cdef int at_input = -1
    cdef WireStatus status
    r.body = body
    s.at = <const uint8_t*><const char*>body
    s.end = s.at + len(body)
    status = read_request(r, s, &at_input)
    if status == WIRE_OK:
        return r
    why = why_malformed(status)
    if at_input < 0:
        raise InvalidRequest(f"the ModelInferRequest is malformed: {why}")
    name = shown(r.tensors[at_input].name) if span_length(r.tensors[at_input].name) else "without a readable name"
    raise InvalidRequest(f"input {name} (number {at_input}) of the ModelInferRequest is malformed: {why}")
