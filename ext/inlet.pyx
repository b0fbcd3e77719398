"""How much of a message a client may send before it is known whether it may come.

As a rule a whole window of it: then a large message costs no round trip. But what is refused by its length has been
sent all the same, and reading it costs more than refusing it. So a connection on which one was refused gets small
windows, in which any message begins and small ones are sent whole; a large one that may come gets the usual window
for its stream. After a while without a refusal all is as before.
"""

from libc.stdint cimport int32_t, uint32_t

from inferd._native.nghttp2 cimport *
from inferd._native.outlet cimport Outlet

cdef enum:
    # Enough to see what a message is for.
    FIRST_BYTES = 16384
    HOLD_BACK_NS = 1000000000


cdef class Inlet(Outlet):
    """What a connection lets come."""

    cdef int hold_back(self) except -1:
        """Have messages begun with less of each: what is refused should not have come first."""
        self.held_back_ns = self.received_ns
        if self.holds_back:
            return 0
        self.holds_back = True
        return self.set_first_window(FIRST_BYTES)

    cdef int let_come(self, int32_t stream_id) except -1:
        if not self.holds_back:
            return 0
        if self.received_ns - self.held_back_ns > HOLD_BACK_NS:
            # Nothing was refused for a while. The new setting opens this stream too.
            self.holds_back = False
            return self.set_first_window(<uint32_t>self.window_bytes)
        nghttp2_session_set_local_window_size(
            self.session, NGHTTP2_FLAG_NONE, stream_id, <int32_t>self.window_bytes)
        self.touch()
        return 0

    cdef int set_first_window(self, uint32_t size) except -1:
        cdef nghttp2_settings_entry setting
        setting.settings_id, setting.value = NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, size
        nghttp2_submit_settings(self.session, NGHTTP2_FLAG_NONE, &setting, 1)
        self.touch()
        return 0
