"""Who calls and what they may: see principal.pxd."""

cimport cython
from libc.stdint cimport int64_t

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

    cdef bint holds(self, bytes authorization, bytes api_key, object mark, int64_t now_ns) except -1:
        """Whether a call with these headers is by the same caller, and nothing has changed since."""
        return (
            self.mark is mark
            and (self.until_ns == 0 or now_ns < self.until_ns)
            and self.authorization == authorization
            and self.api_key == api_key
        )
