"""What a model accepts and answers."""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free

from inferd._native.datatype import name_of
from inferd._native.span cimport Span, put_varint
from inferd._native.wire cimport MAX_RANK, text_of

from inferd.near import hint


cdef bytes string_field(int field, bytes payload):
    """One string of an answer; proto3 leaves empty ones out."""
    cdef uint8_t head[16]
    cdef uint8_t* end = put_varint(head, <uint64_t>(field << 3 | 2))
    if not payload:
        return b""
    end = put_varint(end, <uint64_t>len(payload))
    return (<const char*>head)[:end - head] + payload


cdef int64_t* owned_dims(shape) except NULL:
    cdef int k
    cdef int64_t* dims = <int64_t*>calloc(max(len(shape), 1), sizeof(int64_t))
    if dims == NULL:
        raise MemoryError
    for k in range(len(shape)):
        dims[k] = shape[k]
    return dims


cdef bint fill(TensorSpec* specs, list names, tensors, model_shapes, bint batched) except -1:
    """Describe the tensors. True if the model has another shape for some than clients see."""
    cdef int i
    cdef bint reshapes = False
    cdef bytes name
    for i, shape in enumerate(model_shapes):
        if shape is None:
            continue
        if batched and (not shape or shape[0] >= 0):
            raise ValueError(f"'{tensors[i][0]}' has no open first dimension in the model to be the batch axis")
        if sum([size < 0 for size in shape]) != sum([size < 0 for size in tensors[i][2]]):
            raise ValueError(f"'{tensors[i][0]}' has not as many open dimensions in both of its shapes")
        if len(tensors[i][2]) > MAX_RANK or len(shape) > MAX_RANK:
            raise ValueError(f"'{tensors[i][0]}' has more than {MAX_RANK} dimensions")
        specs[i].model_rank = len(shape)
        specs[i].model_dims = owned_dims(shape)
        reshapes = True
    for i, (text, datatype, shape) in enumerate(tensors):
        name_of(datatype)  # KeyError for one that the protocol does not have
        if batched and (not shape or shape[0] >= 0):
            raise ValueError(f"'{text}' has no open first dimension to be the batch axis")
        name = text.encode()
        names.append(name)
        specs[i].name = <const uint8_t*><const char*>name
        specs[i].name_length = len(name)
        specs[i].datatype = datatype
        specs[i].rank = len(shape)
        specs[i].dims = owned_dims(shape)
    return reshapes


@cython.final
cdef class Signature:
    """Inputs and outputs of one model version, as the wire sees them.

    `inputs` and `outputs` are sequences of (name, ONNX element type number, shape with -1 for any and
    with the batch axis). With `batched`, axis 0 of every tensor is the batch axis and a request may
    bring 1 to `max_rows` rows; with `lenient` other numbers of rows are let through to run alone, and with
    `broadcasts` also inputs that differ in it. Immutable once made. ValueError if a batched tensor has no
    open axis 0. `labels` has the Labels of outputs that have some, by name. `model_inputs` and `model_outputs` are the
    shapes that the model itself has, None where clients see the same; open dimensions match in their order. Requests may
    leave out the inputs named in `optional`; they share a run with those that leave out the same.
    """

    def __cinit__(
        self,
        str model not None,
        str version not None,
        inputs,
        outputs,
        *,
        bint batched,
        int64_t max_rows,
        bint lenient=False,
        bint broadcasts=False,
        labels=None,
        model_inputs=(),
        model_outputs=(),
        optional=(),
    ):
        inputs, outputs = tuple(inputs), tuple(outputs)
        self.model = model
        self.version = version
        self.batched = batched
        self.lenient = lenient
        self.broadcasts = broadcasts
        self.max_rows = max_rows if batched else 1
        self.names = []
        self.uniform = True
        self.input_count = len(inputs)
        self.inputs = <TensorSpec*>calloc(max(self.input_count, 1), sizeof(TensorSpec))
        self.output_count = len(outputs)
        self.outputs = <TensorSpec*>calloc(max(self.output_count, 1), sizeof(TensorSpec))
        if self.inputs == NULL or self.outputs == NULL:
            raise MemoryError
        self.reshapes_inputs = fill(self.inputs, self.names, inputs, model_inputs, batched)
        self.reshapes_outputs = fill(self.outputs, self.names, outputs, model_outputs, batched)
        cdef int i, k
        for i in range(self.input_count):
            if inputs[i][0] in optional:
                self.inputs[i].optional = True
                self.optional_count += 1
                self.uniform = False
            for k in range(1 if batched else 0, self.inputs[i].rank):
                if self.inputs[i].dims[k] < 0:
                    self.uniform = False
        self.reply_head = string_field(1, model.encode()) + string_field(2, version.encode())
        self.reply_outputs = [
            string_field(1, name.encode()) + string_field(2, name_of(datatype).encode())
            for name, datatype, _ in outputs
        ]
        self.reply_classes = [string_field(1, name.encode()) + string_field(2, b"BYTES") for name, _, _ in outputs]
        self.labels = [None if labels is None else labels.get(name) for name, _, _ in outputs]

    def __dealloc__(self):
        cdef int i
        if self.inputs != NULL:
            for i in range(self.input_count):
                free(self.inputs[i].dims)
                free(self.inputs[i].model_dims)
            free(self.inputs)
        if self.outputs != NULL:
            for i in range(self.output_count):
                free(self.outputs[i].dims)
                free(self.outputs[i].model_dims)
            free(self.outputs)


cdef str near_input(Signature signature, Span name):
    """What to add to an error about an input that the model does not have."""
    return hint(text_of(name), [text.decode() for text in signature.names[:signature.input_count]])


cdef str near_output(Signature signature, Span name):
    """The same for an output."""
    return hint(text_of(name), [text.decode() for text in signature.names[signature.input_count:]])


cdef bint same_shape(Signature signature, Request a, Request b) noexcept nogil:
    """True if two bound requests may share a batch: they have the same inputs, of equal dimensions but the batch axis."""
    cdef int i, k
    if a.apart or b.apart or a.on_gpu != b.on_gpu:
        return False
    if signature.uniform:
        return True
    for i in range(signature.input_count):
        if a.tensors[i].absent != b.tensors[i].absent:
            return False
        for k in range(1 if signature.batched else 0, a.tensors[i].rank):
            if a.dims[a.tensors[i].dims_at + k] != b.dims[b.tensors[i].dims_at + k]:
                return False
    return True
