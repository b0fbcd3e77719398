"""How libnghttp2 is told to behave where its habits are not ours."""

from libc.stdint cimport INT32_MAX, uint64_t

from inferd._native.nghttp2 cimport (
    nghttp2_option, nghttp2_option_new, nghttp2_option_set_no_auto_window_update,
)

cdef extern from *:
    """
    /* In 1.57 and newer, and in older ones that distributions have mended. */
    extern void nghttp2_option_set_stream_reset_rate_limit(nghttp2_option*, uint64_t, uint64_t) __attribute__((weak));

    static void inferd_set_reset_limit(nghttp2_option* option, uint64_t burst, uint64_t rate) {
        if (nghttp2_option_set_stream_reset_rate_limit) nghttp2_option_set_stream_reset_rate_limit(option, burst, rate);
    }
    """
    void set_reset_limit "inferd_set_reset_limit" (nghttp2_option* option, uint64_t burst, uint64_t rate)


cdef nghttp2_option* server_options() except NULL:
    """Made once and kept; sessions copy what they need of it."""
    cdef nghttp2_option* made
    if nghttp2_option_new(&made):
        raise MemoryError
    # Windows open as messages are read, not as bytes come.
    nghttp2_option_set_no_auto_window_update(made, 1)
    # Its own limit on resets would close connections of clients that cancel many calls; ours is Hub.max_unpaid_frames.
    set_reset_limit(made, INT32_MAX, INT32_MAX)
    return made
