"""Who calls and what they may, as it was decided; kept, so that it is decided once. Knows nothing of credentials."""

from libc.stdint cimport int64_t


cdef class Permission:
    cdef readonly object refusal      # an InferdError, None if the call may be made
    cdef readonly bint is_for_all     # whatever model it is for
    cdef object judge                 # a model's name -> whether it may be made for that model
    cdef object denied                # told each model that the call was refused for, or None
    cdef dict known

    cdef bint covers(self, str model) except -1
    cpdef int deny(self, str model) except -1


cdef class Principal:
    cdef readonly str name            # "" for somebody unknown
    cdef readonly tuple names         # all that a policy may know the caller by
    cdef readonly object mark         # of the rules by which that was found
    cdef readonly int64_t until_ns    # monotonic; 0 = for ever
    cdef readonly int weight          # how large its share of a queue is beside others
    cdef bytes authorization
    cdef bytes api_key
    cdef readonly dict permissions    # path -> Permission
    # The method that was called last.
    cdef bytes path
    cdef Permission permission
    cdef public object caller         # whose requests are counted together; None until somebody asks

    cdef bint holds(
        self, const char* authorization, size_t authorization_size, const char* api_key, size_t api_key_size,
        object mark, int64_t now_ns
    ) noexcept
    cdef Permission permission_for(self, const char* path, size_t size)
