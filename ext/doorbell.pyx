"""How whoever runs batches is told that a queue has work, without Python bytecode and without polling."""

cimport cython
from libc.stdint cimport int64_t

cdef extern from *:
    """
    #include <errno.h>
    #include <pthread.h>
    #include <time.h>

    typedef struct {
        pthread_mutex_t mutex;
        pthread_cond_t was_rung;
        int waiting;
        int rung;
    } inferd_bell;

    /* 0, or an errno and nothing left to destroy. */
    static int inferd_bell_init(inferd_bell* bell) {
        pthread_condattr_t attributes;
        int failure = pthread_condattr_init(&attributes);
        bell->waiting = bell->rung = 0;
        if (failure) return failure;
        failure = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        if (!failure) failure = pthread_cond_init(&bell->was_rung, &attributes);
        pthread_condattr_destroy(&attributes);
        if (failure) return failure;
        failure = pthread_mutex_init(&bell->mutex, NULL);
        if (failure) pthread_cond_destroy(&bell->was_rung);
        return failure;
    }

    static void inferd_bell_destroy(inferd_bell* bell) {
        pthread_cond_destroy(&bell->was_rung);
        pthread_mutex_destroy(&bell->mutex);
    }

    static void inferd_bell_ring(inferd_bell* bell) {
        pthread_mutex_lock(&bell->mutex);
        bell->rung = 1;
        if (bell->waiting) pthread_cond_signal(&bell->was_rung);
        pthread_mutex_unlock(&bell->mutex);
    }

    /* Until rung or until the monotonic clock shows until_ns (< 0: no limit). True if rung. */
    static int inferd_bell_wait(inferd_bell* bell, int64_t until_ns) {
        struct timespec until;
        int failure = 0, rung;
        until.tv_sec = until_ns / 1000000000;
        until.tv_nsec = until_ns % 1000000000;
        pthread_mutex_lock(&bell->mutex);
        bell->waiting++;
        while (!bell->rung && !failure) {
            if (until_ns < 0) failure = pthread_cond_wait(&bell->was_rung, &bell->mutex);
            else failure = pthread_cond_timedwait(&bell->was_rung, &bell->mutex, &until);
        }
        bell->waiting--;
        rung = bell->rung;
        bell->rung = 0;
        pthread_mutex_unlock(&bell->mutex);
        return rung;
    }
    """
    ctypedef struct inferd_bell:
        pass
    int inferd_bell_init(inferd_bell* bell) noexcept nogil
    void inferd_bell_destroy(inferd_bell* bell) noexcept nogil
    void inferd_bell_ring(inferd_bell* bell) noexcept nogil
    bint inferd_bell_wait(inferd_bell* bell, int64_t until_ns) noexcept nogil


cdef class Bell:
    """What is rung after a request was queued."""

    cpdef void ring(self) except *:
        """Say that there is work."""


@cython.final
cdef class LoopBell(Bell):
    """For work that the loop's own thread does: `tell` is called at the first ring, and again only after heard().

    Belongs to the loop's thread.
    """

    def __cinit__(self, tell not None):
        self.tell = tell

    cpdef void ring(self) except *:
        """Say that there is work."""
        if not self.rung:
            self.rung = True
            self.tell()

    def heard(self) -> None:
        """The next ring is a new one."""
        self.rung = False


@cython.final
cdef class Doorbell(Bell):
    """Any thread may ring; a ring that nobody waits for is kept for the next to wait. Several rings are one.

    The mutex inside is held for a few instructions and never while the GIL is being asked for.
    """

    cdef inferd_bell bell
    cdef bint made

    def __cinit__(self):
        cdef int failure = inferd_bell_init(&self.bell)
        if failure:
            raise OSError(failure, "a mutex and a condition variable could not be had")
        self.made = True

    def __dealloc__(self):
        if self.made:
            inferd_bell_destroy(&self.bell)

    cpdef void ring(self) except *:
        """Wake one waiter, or let the next one not wait."""
        inferd_bell_ring(&self.bell)

    def wait(self, int64_t until_ns=-1) -> bool:
        """Wait without the GIL for a ring, or until time.monotonic_ns() passes `until_ns`; True if rung."""
        cdef bint rung
        with nogil:
            rung = inferd_bell_wait(&self.bell, until_ns)
        return rung
