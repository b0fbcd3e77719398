"""Rows of many requests -> one contiguous buffer. The pointer is handed in: host memory now, pinned memory later."""

from libc.stdint cimport uint8_t, uint32_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from inferd._native.datatype cimport BYTES
from inferd._native.batch cimport Batch
from inferd._native.region cimport Place, Region, read_place
from inferd._native.wire cimport Request, Tensor

from inferd.errors import RegionShrank


cdef struct Piece:
    const uint8_t* data
    size_t nbytes
    const Place* place     # where to read from if data is NULL


cdef enum:
    # Below this a memcpy is cheaper than giving the GIL away and waiting to have it back.
    RELEASE_FROM_BYTES = 65536


cdef bint copy(uint8_t* to, Piece* pieces, Py_ssize_t piece_count) noexcept nogil:
    """False if the shared memory of one is not there any more."""
    cdef Py_ssize_t i
    for i in range(piece_count):
        if pieces[i].nbytes:
            if pieces[i].data != NULL:
                memcpy(to, pieces[i].data, pieces[i].nbytes)
            elif pieces[i].place.of_gpu == NULL and not read_place(pieces[i].place, to):
                return False
            to += pieces[i].nbytes
    return True


def gather(Batch batch not None, int index, uintptr_t address, Py_ssize_t capacity) -> int:
    """Copy input `index` of every member, in order, to the `capacity` bytes at `address`; the bytes written.

    The caller owns the memory and keeps it until the run is over. What is in memory of a GPU is left out, see
    gpu_pieces. Raises ValueError if it is too small,
    before anything is written, and RegionShrank if a member's bytes are in shared memory that has become smaller.
    """
    cdef list members = batch.members
    cdef Py_ssize_t member_count = len(members)
    cdef Py_ssize_t i
    cdef size_t total = 0
    cdef Piece* pieces
    cdef Request member
    cdef bint done
    if not 0 <= index < batch.signature.input_count:
        raise IndexError(index)
    pieces = <Piece*>malloc(max(member_count, 1) * sizeof(Piece))
    if pieces == NULL:
        raise MemoryError
    try:
        for i in range(member_count):
            member = <Request>members[i]
            pieces[i].data = member.tensors[index].data
            pieces[i].nbytes = <size_t>member.tensors[index].nbytes
            pieces[i].place = &member.tensors[index].place
            total += pieces[i].nbytes
        if capacity < 0 or total > <size_t>capacity:
            raise ValueError(f"gather: {total} bytes do not fit into {capacity}")
        if total >= RELEASE_FROM_BYTES:
            with nogil:
                done = copy(<uint8_t*>address, pieces, member_count)
        else:
            done = copy(<uint8_t*>address, pieces, member_count)
        if not done:
            raise RegionShrank("the shared memory of an input has become smaller while its request waited")
    finally:
        free(pieces)
    return total


def gpu_pieces(Batch batch not None, int index) -> list[tuple[int, Region, int, int]]:
    """What of input `index` is in memory of GPUs: where it belongs in the input, the region, where in it, how many bytes."""
    cdef list found = []
    cdef Py_ssize_t at = 0
    cdef Tensor* tensor
    if not 0 <= index < batch.signature.input_count:
        raise IndexError(index)
    for item in batch.members:
        tensor = &(<Request>item).tensors[index]
        if tensor.in_shared_memory and tensor.place.of_gpu != NULL and tensor.nbytes:
            found.append((at, <Region>tensor.place.of_gpu, tensor.place.at, tensor.nbytes))
        at += tensor.nbytes
    return found


def strings(Batch batch not None, int index) -> list[str]:
    """The elements of a BYTES input of every member, in order. A Python object each: ONNX Runtime takes no less.

    Raises TypeError for an input of another datatype.
    """
    cdef list found = []
    cdef Request member
    cdef const uint8_t* at
    cdef const uint8_t* end
    cdef uint32_t length = 0
    if not 0 <= index < batch.signature.input_count:
        raise IndexError(index)
    if batch.signature.inputs[index].datatype != BYTES:
        raise TypeError(f"strings: input {index} is not BYTES")
    for item in batch.members:
        member = <Request>item
        at = member.tensors[index].data
        end = at + member.tensors[index].nbytes
        while at != end:
            memcpy(&length, at, 4)
            found.append((<const char*>(at + 4))[:length].decode("utf-8"))
            at += 4 + length
    return found
