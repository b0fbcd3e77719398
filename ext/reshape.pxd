"""Tensors whose shape on the wire is not the one that the model has: the same elements, counted otherwise."""

from libc.stdint cimport int64_t

from inferd._native.signature cimport Signature, TensorSpec
from inferd._native.wire cimport Request


cdef int reshape_inputs(Signature s, Request r) except -1
cdef bint reshape_output(TensorSpec* spec, const int64_t* dims, int rank, int64_t* wire) noexcept nogil
