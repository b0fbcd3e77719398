"""What stands before every method: see guard.pxd.

What is known of a connection's last caller is used again, so that a client that goes on as it began costs no Python.
"""

cimport cython
from libc.stdint cimport int64_t
from libc.string cimport memcmp

from inferd._native.headers cimport Header, headers_at
from inferd._native.principal cimport Principal, Permission
from inferd._native.nghttp2 cimport nghttp2_rcbuf_get_buf, nghttp2_vec
from inferd._native.stream cimport Stream

import logging

from inferd.errors import InferdError, Internal

log = logging.getLogger("inferd.rpc")

cdef enum:
    LOOK_NS = 1000000000
    # Paths are the client's to choose.
    MAX_PATHS = 256


cdef bytes owned(nghttp2_vec text):
    """A copy; None for what is not there."""
    return None if text.base == NULL else (<char*>text.base)[:text.len]


@cython.final
cdef class Guard:
    """Asks `judge` who calls and whether they may.

    Of `judge`: refresh() gives a mark that changes with the rules; identify(connection, authorization, api_key) gives a
    Principal with that mark, or raises an InferdError; permit(caller, path) gives a Permission; refused(stream, refusal) is
    told of each call that may not go on.
    """

    def __cinit__(self, judge not None):
        self.judge = judge

    cdef bint admits(self, Stream stream) except -1:
        """Put into the stream who calls it, and whether the call may go on; if not, it has its end."""
        refusal = self.refusal(stream)
        if refusal is None:
            return True
        stream.fail(refusal.code, refusal.public_text.encode(), None)
        self.judge.refused(stream, refusal)
        return False

    cdef object refusal(self, Stream stream):
        cdef Principal last = stream.outlet.principal
        cdef int64_t now_ns = stream.arrived_ns
        cdef int i
        cdef Header* at = headers_at(&stream.headers)
        cdef nghttp2_vec key, path, authorization, api_key
        cdef Permission permission
        cdef bytes method
        path.base = authorization.base = api_key.base = NULL
        path.len = authorization.len = api_key.len = 0
        for i in range(stream.headers.count):
            key = nghttp2_rcbuf_get_buf(at[i].name)
            if key.len == 5 and memcmp(key.base, b":path", 5) == 0:
                path = nghttp2_rcbuf_get_buf(at[i].value)
            elif key.len == 9 and memcmp(key.base, b"x-api-key", 9) == 0:
                api_key = nghttp2_rcbuf_get_buf(at[i].value)
            elif key.len == 13 and memcmp(key.base, b"authorization", 13) == 0:
                authorization = nghttp2_rcbuf_get_buf(at[i].value)
        try:
            if self.mark is None or now_ns - self.looked_ns > LOOK_NS:
                self.looked_ns = now_ns
                self.mark = self.judge.refresh()
            if last is None or not last.holds(
                <char*>authorization.base, authorization.len, <char*>api_key.base, api_key.len, self.mark, now_ns
            ):
                last = self.judge.identify(stream.outlet, owned(authorization), owned(api_key))
                stream.outlet.principal = last
            stream.principal = last
            permission = last.permission_for(<char*>path.base, path.len)
            if permission is None:
                method = owned(path) or b""
                permission = last.permissions.get(method)
                if permission is None:
                    permission = self.judge.permit(last, method)
                    if len(last.permissions) < MAX_PATHS:
                        last.permissions[method] = permission
                last.path, last.permission = method, permission
        except InferdError as refusal:
            return refusal.with_traceback(None)
        except Exception:
            log.exception("This is a bug.")
            return Internal()
        stream.permission = permission
        return permission.refusal
