"""Batch: requests that run together. What it tells is enough to lay out the buffers of a run."""

cimport cython
from libc.stdint cimport int64_t, uint64_t

from inferd._native.live cimport BATCHES, INFERD_DEBUG, count
from inferd._native.signature cimport Signature
from inferd._native.wire cimport BOUND, QUEUED, TAKEN, Request


cdef int size_class_of(Request request) noexcept:
    """The number of bits in the bytes of one row. Run times are learnt per class: a batch of long rows is another thing."""
    cdef uint64_t row_bytes = <uint64_t>(request.nbytes // request.rows)
    cdef int bits = 0
    while row_bytes:
        row_bytes >>= 1
        bits += 1
    return bits if bits < SIZE_CLASSES else SIZE_CLASSES - 1


@cython.final
cdef class Batch:
    """Requests that run together, in arrival order.

    `size_class` is the number of bits in the bytes of one row.
    """

    def __cinit__(self):
        if INFERD_DEBUG:
            count(BATCHES, 1)

    def __init__(self):
        raise TypeError("a Batch is made by BatchQueue.take, by alone or by split")

    def __dealloc__(self):
        if INFERD_DEBUG:
            count(BATCHES, -1)

    @property
    def apart(self) -> bool:
        """True for a single request whose rows do not fit into a batch."""
        return (<Request>self.members[0]).apart

    @property
    def on_gpu(self) -> bool:
        """True if tensors of it are in memory of a GPU; then all of its requests have some there."""
        return (<Request>self.members[0]).on_gpu

    @property
    def shape_key(self) -> bytes:
        """All inputs of this batch and their dimensions, as one hashable value: equal keys, equal buffers."""
        cdef Request head = <Request>self.members[0]
        cdef int i, k
        cdef int64_t dim
        parts = []
        for i in range(self.signature.input_count):
            if head.tensors[i].absent:
                dim = -1  # no dimension is
                parts.append((<const char*>&dim)[:sizeof(dim)])
            for k in range(head.tensors[i].rank):
                dim = head.dims[head.tensors[i].dims_at + k]
                if k == 0 and self.shared:
                    dim = self.rows
                parts.append((<const char*>&dim)[:sizeof(dim)])
        return b"".join(parts)

    def has_input(self, int index) -> bool:
        """False if the requests of this batch leave that input to the model."""
        if not 0 <= index < self.signature.input_count:
            raise IndexError(index)
        return not (<Request>self.members[0]).tensors[index].absent

    def input_shape(self, int index) -> list[int]:
        """The shape of one input of the whole batch, which must have it."""
        cdef Request head = <Request>self.members[0]
        cdef int k
        if not 0 <= index < self.signature.input_count:
            raise IndexError(index)
        shape = [head.dims[head.tensors[index].dims_at + k] for k in range(head.tensors[index].rank)]
        if self.shared:
            shape[0] = self.rows
        return shape

    def input_nbytes(self, int index) -> int:
        """The number of bytes that one input of the whole batch takes."""
        cdef Py_ssize_t total = 0
        if not 0 <= index < self.signature.input_count:
            raise IndexError(index)
        for member in self.members:
            total += (<Request>member).tensors[index].nbytes
        return total

    @property
    def is_wanted(self) -> bool:
        """Whether anybody waits for any member's answer."""
        for member in self.members:
            if (<Request>member).completion is not None:
                return True
        return False

    def split(self) -> list[Batch]:
        """One batch per member, for a second try after the batch as a whole failed."""
        return [batch_of(self.signature, [member], (<Request>member).rows, "retry") for member in self.members]

    def halve(self) -> list[Batch]:
        """Two batches of about as many members each, for a second try where there was no memory; of a single one itself."""
        cdef list members = self.members
        cdef Py_ssize_t middle = len(members) // 2
        if not middle:
            return [self]
        return [
            batch_of(self.signature, part, sum([(<Request>member).rows for member in part]), "retry")
            for part in (members[:middle], members[middle:])
        ]


cdef Batch batch_of(Signature signature, list members, int64_t rows, str close_reason):
    """A batch of at least one request, all bound to `signature`."""
    cdef Batch batch = Batch.__new__(Batch)
    batch.signature = signature
    batch.members = members
    batch.shared = len(members) > 1
    batch.rows = rows
    batch.close_reason = close_reason
    batch.size_class = size_class_of(<Request>members[0])
    return batch


cdef int check_bound(Signature signature, Request request) except -1:
    """ValueError, for a bug of ours, unless `request` is bound to `signature` and neither queued nor taken."""
    if request.state == BOUND and request.signature is signature:
        return 0
    if request.state == QUEUED or request.state == TAKEN:
        raise ValueError("queue: a request was put twice")
    raise ValueError("queue: a request is not bound to the signature of this queue")


def alone(Signature signature not None, Request request not None) -> Batch:
    """A batch of one bound request that never was in a queue: for probes and warm-up."""
    check_bound(signature, request)
    request.state = TAKEN
    return batch_of(signature, [request], request.rows, "alone")
