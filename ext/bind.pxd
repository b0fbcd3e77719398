"""The check of a Request against a Signature."""

from inferd._native.region cimport Regions
from inferd._native.signature cimport Signature
from inferd._native.wire cimport Request


cdef int bind_request(Signature s, Request r, Regions regions) except -1
