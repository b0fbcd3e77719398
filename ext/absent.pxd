"""Inputs that a request leaves out."""

from inferd._native.signature cimport Signature
from inferd._native.wire cimport Request


cdef int leave_out(Signature s, Request r) except -1
