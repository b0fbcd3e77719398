"""Who calls and what they may: see principal.pxd."""

cimport cython
from libc.stdint cimport int64_t
from libc.string cimport memcmp

cdef enum:
    # Names of models are the client's to choose; what is remembered of them is bounded.
    MAX_KNOWN = 1024


@cython.final
cdef class Permission:
    """Whether one caller may call one method, and for which models.

    `refusal` is an error if not. `judge`, if not None, is asked for each model's name; `denied`, if not None, is told those
    that calls were then refused for.
    """

    def __cinit__(self, refusal=None, judge=None, denied=None):
        self.refusal, self.judge, self.is_for_all, self.known = refusal, judge, judge is None, {}
        self.denied = denied

    cdef bint covers(self, str model) except -1:
        if self.judge is None:
            return True
        found = self.known.get(model)
        if found is None:
            found = bool(self.judge(model))
            if len(self.known) < MAX_KNOWN:
                self.known[model] = found
        return found

    cpdef int deny(self, str model) except -1:
        """A call is refused because of this model."""
        if self.denied is not None:
            self.denied(model)
        return 0

    def allows(self, str model not None) -> bool:
        """Whether the method may be called for this model; the name of none is every model's."""
        return self.refusal is None and self.covers(model)


@cython.final
cdef class Principal:
    """Somebody who calls, known by credentials or not at all, and what of their permissions was decided so far."""

    def __cinit__(self, tuple names not None, mark, bytes authorization, bytes api_key, int64_t until_ns=0, int weight=1):
        self.names, self.name = names, names[0] if names else ""
        self.mark, self.until_ns, self.weight = mark, until_ns, weight
        self.authorization, self.api_key = authorization, api_key
        self.permissions = {}

    cdef bint holds(
        self, const char* authorization, size_t authorization_size, const char* api_key, size_t api_key_size,
        object mark, int64_t now_ns
    ) noexcept:
        """Whether a call with these headers, NULL for none, is by the same caller, and nothing has changed since."""
        return (
            self.mark is mark
            and (self.until_ns == 0 or now_ns < self.until_ns)
            and is_same(self.authorization, authorization, authorization_size)
            and is_same(self.api_key, api_key, api_key_size)
        )

    cdef Permission permission_for(self, const char* path, size_t size):
        """What was decided of the method that was called last, if this is the one; else None."""
        if self.path is not None and <size_t>len(self.path) == size and memcmp(<const char*>self.path, path, size) == 0:
            return self.permission
        return None


cdef bint is_same(bytes known, const char* shown, size_t size) noexcept:
    """Whether a header is the one that is known. Takes as long wherever they differ: others may share a connection."""
    cdef const char* at
    cdef unsigned char differs = 0
    cdef size_t i
    if known is None or shown == NULL:
        return known is None and shown == NULL
    if <size_t>len(known) != size:
        return False
    at = <const char*>known
    for i in range(size):
        differs |= <unsigned char>at[i] ^ <unsigned char>shown[i]
    return differs == 0
