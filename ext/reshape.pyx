"""Tensors whose shape on the wire is not the one that the model has: the same elements, counted otherwise.

Both shapes have as many open dimensions, and the first open one here is the first open one there. That both hold the
same number of elements is seen to where config.pbtxt is read.
"""

from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from inferd._native.signature cimport Signature, TensorSpec
from inferd._native.wire cimport Request


cdef void carry_over(
    const int64_t* known, int known_rank, const int64_t* sizes, const int64_t* wanted, int wanted_rank, int64_t* to
) noexcept nogil:
    """Write the shape `wanted` with its open dimensions as long as those of `known`, whose lengths are `sizes`."""
    cdef int k, at = 0
    for k in range(wanted_rank):
        to[k] = wanted[k]
        if wanted[k] < 0:
            while at < known_rank and known[at] >= 0:
                at += 1
            if at < known_rank:
                to[k] = sizes[at]
                at += 1


cdef int reshape_inputs(Signature s, Request r) except -1:
    """Give a checked request's inputs the shapes that the model has."""
    cdef int i, count = r.dim_count
    cdef TensorSpec* spec
    cdef int64_t* dims
    for i in range(s.input_count):
        if s.inputs[i].model_dims != NULL:
            count += s.inputs[i].model_rank
    dims = <int64_t*>malloc(<size_t>max(count, 1) * sizeof(int64_t))
    if dims == NULL:
        raise MemoryError
    memcpy(dims, r.dims, <size_t>r.dim_count * sizeof(int64_t))
    if r.dims != r.inline_dims:
        free(r.dims)
    r.dims, r.dim_room = dims, count
    for i in range(s.input_count):
        spec = &s.inputs[i]
        if spec.model_dims == NULL or r.tensors[i].absent:
            continue
        carry_over(
            spec.dims, spec.rank, dims + r.tensors[i].dims_at, spec.model_dims, spec.model_rank, dims + r.dim_count)
        r.tensors[i].dims_at, r.tensors[i].rank = r.dim_count, spec.model_rank
        r.dim_count += spec.model_rank
    return 0


cdef bint reshape_output(TensorSpec* spec, const int64_t* dims, int rank, int64_t* wire) noexcept nogil:
    """The shape that clients see of an output of the shape `dims`; False if the model was said to give another one."""
    cdef int k
    if rank != spec.model_rank:
        return False
    for k in range(rank):
        if spec.model_dims[k] >= 0 and dims[k] != spec.model_dims[k]:
            return False
    carry_over(spec.model_dims, rank, dims, spec.dims, spec.rank, wire)
    return True
