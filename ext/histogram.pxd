"""HDR histogram: log-linear buckets, so that a value of any size is kept to within 0.1 %.

Powers of two from 2**HDR_BITS up are cut into 2**HDR_BITS equal steps each; smaller values are exact.
"""

from libc.stdint cimport int64_t, uint64_t

cdef enum:
    HDR_BITS = 10
    HDR_TOP_BITS = 40
    HDR_SLOTS = (HDR_TOP_BITS - HDR_BITS + 1) << HDR_BITS


cdef extern from *:
    int highest_bit "63 - __builtin_clzll" (uint64_t value) noexcept nogil


cdef inline int hdr_slot(uint64_t value) noexcept nogil:
    cdef int shift
    if value >= (<uint64_t>1 << HDR_TOP_BITS):
        return HDR_SLOTS - 1
    if value < (<uint64_t>1 << HDR_BITS):
        return <int>value
    shift = highest_bit(value) - HDR_BITS
    return ((shift + 1) << HDR_BITS) + <int>((value >> shift) - (<uint64_t>1 << HDR_BITS))


cdef inline uint64_t hdr_highest(int slot) noexcept nogil:
    """The highest value that counts as the same as any other of this slot."""
    cdef int shift = (slot >> HDR_BITS) - 1
    if shift < 0:
        return <uint64_t>slot
    return ((<uint64_t>(slot & ((1 << HDR_BITS) - 1)) + (1 << HDR_BITS) + 1) << shift) - 1


cdef struct Hdr:
    int64_t* counted
    int64_t count
    int64_t total
    int64_t lowest
    int64_t highest


cdef inline void hdr_add(Hdr* hdr, int64_t value, int64_t count) noexcept nogil:
    if value < 0:
        value = 0
    hdr.counted[hdr_slot(<uint64_t>value)] += count
    if hdr.count == 0 or value < hdr.lowest:
        hdr.lowest = value
    if value > hdr.highest:
        hdr.highest = value
    hdr.count += count
    hdr.total += value * count


cdef class Histogram:
    cdef Hdr hdr
