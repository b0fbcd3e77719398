"""Which outputs a request is answered with, in which form, and where they go."""

from inferd._native.region cimport Regions
from inferd._native.signature cimport Signature
from inferd._native.wire cimport Request


cdef int choose_outputs(Signature s, Request r, Regions regions) except -1
