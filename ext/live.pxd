"""Counts of live native objects, kept only in debug builds: a test may ask that none is left."""

cdef extern from *:
    """
    #ifndef INFERD_DEBUG
    #define INFERD_DEBUG 0
    #endif
    """
    const int INFERD_DEBUG


cdef enum Kind:
    REQUESTS
    BATCHES
    QUEUED
    STREAMS
    CONNECTIONS
    CALLERS
    KINDS


cdef void count(Kind kind, int change) noexcept nogil
