"""Batch: requests that run together."""

from libc.stdint cimport int64_t

from inferd._native.signature cimport Signature
from inferd._native.wire cimport Request


cdef enum:
    SIZE_CLASSES = 64


cdef class Batch:
    # In arrival order; owns a reference to each.
    cdef readonly Signature signature
    cdef readonly list members
    cdef readonly int64_t rows
    cdef readonly bint shared     # several members, so outputs are cut by rows; a single one gets them whole
    cdef readonly str close_reason
    cdef readonly int size_class


cdef int size_class_of(Request request) noexcept
cdef Batch batch_of(Signature signature, list members, int64_t rows, str close_reason)
cdef int check_bound(Signature signature, Request request) except -1
