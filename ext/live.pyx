"""Counts of live native objects, kept only in debug builds: a test may ask that none is left."""

cdef long counts[<int>KINDS]


cdef void count(Kind kind, int change) noexcept nogil:
    counts[<int>kind] += change


def snapshot() -> dict | None:
    """Live objects by kind, or None in a release build, which does not count."""
    if not INFERD_DEBUG:
        return None
    return {
        "requests": counts[<int>REQUESTS],
        "batches": counts[<int>BATCHES],
        "queued": counts[<int>QUEUED],
        "streams": counts[<int>STREAMS],
        "connections": counts[<int>CONNECTIONS],
        "callers": counts[<int>CALLERS],
    }
