"""Outputs of a run -> ModelInferResponse bytes, one message per member of the batch.

What a stream answers has one around it, ModelStreamInferResponse, and says that it is the last of its request's.
One raw_output_contents entry per output and never typed contents: that is what clients read. Each
message is allocated once, at its exact size, and each output byte is copied once.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from inferd._native.batch cimport Batch
from inferd._native.classes cimport best_classes
from inferd._native.datatype cimport BYTES, element_size
from inferd._native.region cimport Region, write_place
from inferd._native.reshape cimport reshape_output
from inferd._native.signature cimport Signature, string_field
from inferd._native.span cimport put_span, put_varint, span_length, varint_size
from inferd._native.wire cimport MAX_RANK, Request, Wanted, shown

from inferd.errors import InvalidRequest, RegionShrank, RunFailed

cdef enum:
    # Field number << 3 | wire type, of ModelInferResponse and its InferOutputTensor.
    TAG_ID = 3 << 3 | 2
    TAG_OUTPUT = 5 << 3 | 2
    TAG_RAW = 6 << 3 | 2
    TAG_SHAPE = 3 << 3 | 2
    # The same of ModelStreamInferResponse.
    TAG_INFER_RESPONSE = 2 << 3 | 2
    # protobuf parsers refuse messages of 2 GiB and more.
    MAX_MESSAGE = 0x7FFFFFFF
    RELEASE_FROM_BYTES = 65536


# parameters["triton_final_response"], a bool_param that is true: a model here answers each request once.
cdef bytes FINAL = string_field(4, string_field(1, b"triton_final_response") + string_field(2, b"\x08\x01"))


@cython.final
cdef class OutputView:
    """One output of one run: where its bytes are and what shape they have.

    `owner` keeps the memory alive. A BYTES output has no address: `strings` holds its elements, row-major.
    Raises ValueError if the shape and what is said of the data cannot belong together.
    """

    cdef const uint8_t* data
    cdef int rank
    cdef int64_t dims[MAX_RANK]
    cdef int64_t elements
    cdef int datatype
    cdef list strings
    cdef object owner

    def __cinit__(self, int datatype, shape, *, uintptr_t address=0, list strings=None, owner=None):
        cdef int k
        if len(shape) > MAX_RANK:
            raise ValueError(f"an output of {len(shape)} dimensions")
        self.datatype = datatype
        self.data = <const uint8_t*>address
        self.strings = strings
        self.owner = owner
        self.rank = len(shape)
        elements = 1
        for k in range(self.rank):
            self.dims[k] = shape[k]
            if self.dims[k] < 0:
                raise ValueError(f"an output of shape {shape}")
            elements *= shape[k]
        self.elements = elements
        if datatype == BYTES:
            if strings is None or len(strings) != elements:
                raise ValueError(f"a BYTES output of shape {shape} without its {elements} strings")
        elif elements and not address:
            raise ValueError(f"an output of shape {shape} without an address")


cdef struct Part:
    # One output of one member's answer.
    const uint8_t* head     # the name and datatype fields of its InferOutputTensor
    size_t head_nbytes
    const uint8_t* data
    size_t nbytes
    int rank
    const int64_t* dims
    int64_t rows            # in the place of dims[0], if there is one
    int64_t pair[2]         # dims, where its best classes are answered
    size_t shape_nbytes
    size_t tensor_nbytes


cdef bytes pack_strings(list elements, Py_ssize_t start, Py_ssize_t stop):
    """BYTES elements as the wire has them: 4-byte little-endian length, then the bytes."""
    cdef list parts = []
    for element in elements[start:stop]:
        encoded = element.encode() if isinstance(element, str) else bytes(element)
        parts.append(len(encoded).to_bytes(4, "little"))
        parts.append(encoded)
    return b"".join(parts)


cdef inline int64_t dim(Part* part, int k) noexcept nogil:
    return part.rows if k == 0 else part.dims[k]


cdef inline void hold(Part* part, bytes head) noexcept:
    part.head = <const uint8_t*><const char*>head
    part.head_nbytes = <size_t>len(head)


cdef inline void carry(Part* part, bytes contents) noexcept:
    part.data = <const uint8_t*><const char*>contents
    part.nbytes = <size_t>len(contents)


cdef bytes encode(Signature signature, Request request, Part* parts):
    """One ModelInferResponse from the prepared parts of one member, with its envelope if it goes to a stream."""
    cdef bytes head, message
    cdef Py_ssize_t id_length = span_length(request.id_span)
    cdef size_t total = len(signature.reply_head), inner = 0
    cdef uint8_t* at
    cdef int i, k
    cdef Part* part
    if id_length:
        total += 1 + <size_t>varint_size(<uint64_t>id_length) + <size_t>id_length
    for i in range(signature.output_count):
        if request.chosen != NULL and not request.chosen[i]:
            continue
        part = &parts[i]
        part.shape_nbytes = 0
        for k in range(part.rank):
            part.shape_nbytes += <size_t>varint_size(<uint64_t>dim(part, k))
        part.tensor_nbytes = part.head_nbytes
        if part.rank:
            part.tensor_nbytes += 1 + <size_t>varint_size(part.shape_nbytes) + part.shape_nbytes
        total += 1 + <size_t>varint_size(part.tensor_nbytes) + part.tensor_nbytes
        total += 1 + <size_t>varint_size(part.nbytes) + part.nbytes
    if request.streamed:
        inner = total + <size_t>len(FINAL)
        total = inner + 1 + <size_t>varint_size(inner)
    if total > MAX_MESSAGE:
        raise RunFailed(f"the answer of model '{signature.model}' is {total} bytes; a message holds at most {MAX_MESSAGE}")
    message = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>total)
    at = <uint8_t*>PyBytes_AS_STRING(message)
    if request.streamed:
        at[0] = TAG_INFER_RESPONSE
        at = put_varint(at + 1, inner)
    head = signature.reply_head
    at = put_span(at, <const uint8_t*><const char*>head, len(head))
    if id_length:
        at[0] = TAG_ID
        at = put_varint(at + 1, <uint64_t>id_length)
        at = put_span(at, request.id_span.at, id_length)
    for i in range(signature.output_count):
        if request.chosen != NULL and not request.chosen[i]:
            continue
        part = &parts[i]
        at[0] = TAG_OUTPUT
        at = put_varint(at + 1, part.tensor_nbytes)
        at = put_span(at, part.head, <Py_ssize_t>part.head_nbytes)
        if part.rank:
            at[0] = TAG_SHAPE
            at = put_varint(at + 1, part.shape_nbytes)
            for k in range(part.rank):
                at = put_varint(at, <uint64_t>dim(part, k))
    for i in range(signature.output_count):
        if request.chosen != NULL and not request.chosen[i]:
            continue
        part = &parts[i]
        at[0] = TAG_RAW
        at = put_varint(at + 1, part.nbytes)
        if part.nbytes >= RELEASE_FROM_BYTES:
            # Nobody else has seen the new message yet, so writing to it without the GIL is safe.
            with nogil:
                memcpy(at, part.data, part.nbytes)
        elif part.nbytes:
            memcpy(at, part.data, part.nbytes)
        at += part.nbytes
    if request.streamed:
        put_span(at, <const uint8_t*><const char*>FINAL, len(FINAL))
    return message


def streamed_failure(bytes text not None, bytes id not None) -> bytes:
    """The ModelStreamInferResponse for a request that failed: why, and the request's id."""
    return string_field(1, text) + string_field(2, string_field(3, id) + FINAL)


cdef int fill(
    Part* part, Batch batch, Request member, int i, OutputView view, int64_t first_row, list packed, const int64_t* wire
) except -1:
    """Prepare output `i` of one member, whose rows begin at `first_row`. What has to be made for it goes to `packed`.

    `wire` has the shapes of outputs that clients see otherwise, at MAX_RANK for each; NULL if there are none.
    """
    cdef int64_t classes = 0 if member.chosen == NULL else member.wanted[member.chosen[i] - 1].classes
    cdef int64_t row_elements = view.elements // batch.rows if batch.shared else view.elements
    if classes:
        return fill_classes(part, batch, member, i, view, first_row, classes, packed)
    hold(part, <bytes>batch.signature.reply_outputs[i])
    part.rank = view.rank
    part.dims = view.dims
    if wire != NULL and batch.signature.outputs[i].model_dims != NULL:
        part.rank = batch.signature.outputs[i].rank
        part.dims = wire + i * MAX_RANK
    part.rows = member.rows if batch.shared else part.dims[0]
    if view.datatype == BYTES:
        strings = pack_strings(
            view.strings, first_row * row_elements if batch.shared else 0,
            (first_row + member.rows) * row_elements if batch.shared else row_elements,
        )
        packed.append(strings)
        carry(part, strings)
        return 0
    part.nbytes = <size_t>(row_elements * element_size(view.datatype))
    part.data = view.data
    if batch.shared:
        part.data += <size_t>first_row * part.nbytes
        part.nbytes *= <size_t>member.rows
    return 0


cdef int fill_classes(
    Part* part, Batch batch, Request member, int i, OutputView view, int64_t first_row, int64_t classes, list packed
) except -1:
    """The same where the client asked for the best classes: of each row, if the model has rows."""
    cdef Signature signature = batch.signature
    cdef bint by_row = signature.batched and view.rank > 0
    cdef int64_t rows = 1, width = 1
    cdef int k
    for k in range(1 if by_row else 0, view.rank):
        width *= view.dims[k]
    classes = min(classes, width)
    if by_row:
        rows = member.rows if batch.shared else view.dims[0]
    part.rank = 2 if by_row else 1
    part.rows = rows if by_row else classes
    part.pair[1] = classes
    part.dims = part.pair
    hold(part, <bytes>signature.reply_classes[i])
    found = best_classes(
        view.datatype, view.data + <size_t>(first_row * width * element_size(view.datatype)),
        rows, width, classes, signature.labels[i],
    )
    packed.append(found)
    carry(part, found)
    return 0


cdef str output_text(Signature signature, int i):
    return f"output '{signature.outputs[i].name[:signature.outputs[i].name_length].decode()}' of model '{signature.model}'"


cdef object deliver(Signature signature, Request member, Part* parts, list to_gpu):
    """Write what goes to shared memory there, which leaves nothing of it for the answer. The error, if one cannot be.

    What goes to memory of a GPU is left to the caller, in `to_gpu`.
    """
    cdef int i
    cdef Part* part
    cdef Wanted* wanted
    cdef bint written
    for i in range(signature.output_count):
        if member.chosen == NULL or not member.chosen[i]:
            continue
        part, wanted = &parts[i], &member.wanted[member.chosen[i] - 1]
        if not wanted.in_shared_memory:
            continue
        if part.nbytes > <size_t>wanted.place.nbytes:
            return InvalidRequest(
                f"output {shown(wanted.name)} is {part.nbytes} bytes, but the request gives it {wanted.place.nbytes} of shared memory"
            )
        if wanted.place.of_gpu != NULL:
            if part.nbytes:
                to_gpu.append((<Region>wanted.place.of_gpu, wanted.place.at, <uintptr_t>part.data, part.nbytes))
            part.nbytes = 0
            continue
        if part.nbytes >= RELEASE_FROM_BYTES:
            with nogil:
                written = write_place(&wanted.place, part.data, <int64_t>part.nbytes)
        else:
            written = write_place(&wanted.place, part.data, <int64_t>part.nbytes)
        if not written:
            return RegionShrank(f"output {shown(wanted.name)} cannot be written: its shared memory has become smaller or is full")
        part.nbytes = 0
    return None


cdef int64_t* reshaped(Signature signature, list views) except NULL:
    """For each output room for MAX_RANK dimensions, with the shape that clients see where that is another one."""
    cdef OutputView view
    cdef int i
    cdef int64_t* wire = <int64_t*>calloc(<size_t>signature.output_count * MAX_RANK, sizeof(int64_t))
    if wire == NULL:
        raise MemoryError
    for i in range(signature.output_count):
        view = <OutputView>views[i]
        if signature.outputs[i].model_dims != NULL and not reshape_output(
            &signature.outputs[i], view.dims, view.rank, wire + i * MAX_RANK
        ):
            free(wire)
            raise RunFailed(f"{output_text(signature, i)} is not of the shape that its reshape in config.pbtxt says")
    return wire


def answer(Batch batch not None, list views not None) -> list[tuple[Region, int, int, int]]:
    """Encode the answer of every member from the outputs of the batch's run, into member.answer.

    What it gives back has still to be copied to memory of GPUs: the region, where in it, the address, how many bytes.

    `views` has one OutputView per output of the model, in the model's order. Raises RunFailed if an
    output is not of the datatype that the model declares, or if one does not have one row per row of a
    batch that several share: then no answer can be right.
    """
    cdef Signature signature = batch.signature
    cdef OutputView view
    cdef Request member
    cdef Part* parts
    cdef int64_t* wire = NULL
    cdef list packed = [], to_gpu = []
    cdef int64_t first_row = 0
    cdef int i
    if len(views) != signature.output_count:
        raise ValueError(f"{len(views)} views for {signature.output_count} outputs")
    for i in range(signature.output_count):
        if not isinstance(views[i], OutputView):
            raise TypeError(f"view {i} is no OutputView")
        view = <OutputView>views[i]
        if view.datatype != <int>signature.outputs[i].datatype:
            raise RunFailed(f"{output_text(signature, i)} is not of the datatype that the model declares")
        if batch.shared and (view.rank == 0 or view.dims[0] != batch.rows):
            raise RunFailed(f"{output_text(signature, i)} does not have one row for each of {batch.rows} rows")
    parts = <Part*>malloc(max(signature.output_count, 1) * sizeof(Part))
    if parts == NULL:
        raise MemoryError
    try:
        if signature.reshapes_outputs:
            wire = reshaped(signature, views)
        for item in batch.members:
            member = <Request>item
            packed.clear()
            for i in range(signature.output_count):
                if member.chosen != NULL and not member.chosen[i]:
                    continue
                fill(&parts[i], batch, member, i, <OutputView>views[i], first_row, packed, wire)
            if member.held is not None:
                member.error = deliver(signature, member, parts, to_gpu)
            if member.error is None:
                member.answer = encode(signature, member, parts)
            first_row += member.rows
    finally:
        free(wire)
        free(parts)
    return to_gpu


def gpu_outputs(Batch batch not None) -> dict[int, tuple[Region, int, int]]:
    """Where a batch of one request wants outputs in memory of GPUs: the region, where in it, how many bytes there are."""
    cdef Request member = <Request>batch.members[0]
    cdef Wanted* wanted
    cdef dict found = {}
    cdef int i
    for i in range(batch.signature.output_count if member.chosen != NULL else 0):
        if member.chosen[i]:
            wanted = &member.wanted[member.chosen[i] - 1]
            if wanted.in_shared_memory and wanted.place.of_gpu != NULL:
                found[i] = (<Region>wanted.place.of_gpu, wanted.place.at, wanted.place.nbytes)
    return found
