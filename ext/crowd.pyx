"""Many connections in one thread, and requests over them in a closed or an open loop. See crowd.pxd for who owns what.

Closed loop: every connection keeps `streams` calls under way. Open loop: calls are due at moments that depend on
nothing the server does, go out on whichever connection has room, and count their latency from when they were due.
"""

from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc
from posix.unistd cimport close, read

from inferd._native.arrivals cimport next_arrival
from inferd._native.client cimport *
from inferd._native.clock cimport monotonic_ns
from inferd._native.histogram cimport hdr_add
from inferd._native.tally cimport Slice, Tally, tally_answer, tally_failure

cdef enum:
    EVENTS = 64
    FIRST_BACKOFF_NS = 1_000_000
    LAST_BACKOFF_NS = 100_000_000

cdef extern from *:
    """
    #include <sys/epoll.h>
    #include <sys/prctl.h>
    #include <sys/timerfd.h>

    static void inferd_watch(int epoll, int operation, int file, void* owner, int writing) {
        struct epoll_event event;
        event.events = EPOLLIN | (writing ? EPOLLOUT : 0);
        event.data.ptr = owner;
        epoll_ctl(epoll, operation, file, &event);
    }

    static int inferd_set_timer(int timer, int64_t at_ns) {
        struct itimerspec at = {{0, 0}, {at_ns / 1000000000, at_ns % 1000000000}};
        return timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
    }

    /* The kernel may group wake-ups of a thread to save power, by default within 50 us: not while measuring. */
    static void inferd_be_punctual(void) { prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0); }
    """
    ctypedef union epoll_data_t:
        void* ptr
    cdef struct epoll_event:
        unsigned int events
        epoll_data_t data
    enum:
        EPOLLIN
        EPOLLOUT
        EPOLL_CLOEXEC
        EPOLL_CTL_ADD
        EPOLL_CTL_MOD
        CLOCK_MONOTONIC
        TFD_CLOEXEC
        TFD_NONBLOCK
    int epoll_create1(int flags) noexcept nogil
    int epoll_wait(int epoll, epoll_event* events, int count, int timeout_ms) noexcept nogil
    int timerfd_create(int clock, int flags) noexcept nogil
    void watch "inferd_watch" (int epoll, int operation, int file, void* owner, bint writing) noexcept nogil
    int set_timer "inferd_set_timer" (int timer, int64_t at_ns) noexcept nogil
    void be_punctual "inferd_be_punctual" () noexcept nogil


# --- calls ------------------------------------------------------------------------------------------


cdef void on_ended(void* owner, Call* call) noexcept nogil:
    cdef Crowd* crowd = <Crowd*>owner
    cdef Tally* tally = crowd.tally
    if call.refused and not call.again:
        call.again = True
        call.next = crowd.again
        crowd.again = call
        return
    if call.code == OK:
        tally.ok += 1
        hdr_add(tally.latency, monotonic_ns() - call.due_ns, 1)
        if crowd.accepted != NULL:
            tally_answer(tally, &crowd.accepted[call.request], call)
    else:
        tally_failure(tally, call)
    crowd.ended += 1
    call.next = crowd.spare
    crowd.spare = call


cdef Call* due_call(Crowd* crowd, int64_t now_ns) noexcept nogil:
    """The next call that may go out now, or NULL."""
    cdef Call* call = crowd.again
    if call != NULL:
        crowd.again = call.next
        return call
    if crowd.limit and crowd.started == crowd.limit:
        return NULL
    if crowd.arrivals.interval_ns and crowd.arrivals.due_ns > now_ns:
        return NULL
    call = crowd.spare
    if call != NULL:
        crowd.spare = call.next
    else:
        call = <Call*>calloc(1, sizeof(Call))
        if call == NULL:
            return NULL
    call.again = False
    call.due_ns = now_ns
    if crowd.arrivals.interval_ns:
        call.due_ns = <int64_t>crowd.arrivals.due_ns
        next_arrival(&crowd.arrivals)
    call.request = crowd.next_body
    crowd.next_body = (crowd.next_body + 1) % crowd.body_count
    crowd.started += 1
    crowd.tally.sent += 1
    return call


# --- connections ------------------------------------------------------------------------------------


cdef void pause(Crowd* crowd, Seat* seat, int64_t now_ns) noexcept nogil:
    """Leave the seat empty for a while, which grows until a connection comes to stand again."""
    crowd.tally.lost += 1
    crowd.empty_seats += 1
    seat.connect_at_ns = now_ns + seat.backoff_ns
    seat.backoff_ns = min(2 * seat.backoff_ns, LAST_BACKOFF_NS)


cdef void count_bytes(Crowd* crowd, Connection* connection) noexcept nogil:
    crowd.tally.sent_bytes += connection.sent_bytes
    crowd.tally.received_bytes += connection.received_bytes
    connection.sent_bytes = connection.received_bytes = 0


cdef void leave(Crowd* crowd, Seat* seat, int64_t now_ns) noexcept nogil:
    """Close the seat's connection, whose calls end with it."""
    cdef Connection* connection = seat.connection
    cdef Seat** link = &crowd.retired
    count_bytes(crowd, connection)
    connection_free(connection)
    if not seat.retired:
        seat.connection = NULL
        pause(crowd, seat, now_ns)
        return
    while link[0] != seat:
        link = &link[0].next
    link[0] = seat.next
    free(seat)


cdef void connect(Crowd* crowd, int64_t now_ns) noexcept nogil:
    """Start every connection whose time has come."""
    cdef int i
    cdef Seat* seat
    for i in range(crowd.seat_count):
        seat = &crowd.seats[i]
        if seat.connection != NULL or seat.connect_at_ns > now_ns:
            continue
        crowd.empty_seats -= 1
        seat.connection = connection_new(&crowd.script, crowd.address, crowd.address_size)
        if seat.connection == NULL:
            pause(crowd, seat, now_ns)
        else:
            seat.writing = True
            watch(crowd.epoll, EPOLL_CTL_ADD, seat.connection.socket, seat, True)


cdef void retire(Crowd* crowd, Seat* seat, int64_t now_ns) noexcept nogil:
    """Move a connection that takes no more calls to a seat of its own, and have another one opened."""
    cdef Seat* last = <Seat*>malloc(sizeof(Seat))
    if last == NULL:
        leave(crowd, seat, now_ns)
        return
    last[0] = seat[0]
    last.retired = True
    last.next = crowd.retired
    crowd.retired = last
    watch(crowd.epoll, EPOLL_CTL_MOD, last.connection.socket, last, last.writing)
    seat.connection = NULL
    # Not at once: a server that says so to every new connection would keep us busy with nothing else.
    seat.connect_at_ns = now_ns + FIRST_BACKOFF_NS
    crowd.empty_seats += 1


cdef void flush(Crowd* crowd, Seat* seat, int64_t now_ns) noexcept nogil:
    cdef bint blocked
    seat.dirty = False
    if not connection_write(seat.connection) or (seat.retired and seat.connection.calls == 0):
        leave(crowd, seat, now_ns)
        return
    blocked = connection_blocked(seat.connection)
    if blocked != seat.writing:
        seat.writing = blocked
        watch(crowd.epoll, EPOLL_CTL_MOD, seat.connection.socket, seat, blocked)


cdef bint room(const Crowd* crowd, const Seat* seat) noexcept nogil:
    return seat.connection != NULL and seat.connection.calls < crowd.streams and connection_open(seat.connection)


cdef bint call_on(Crowd* crowd, Seat* seat, int64_t now_ns) noexcept nogil:
    """Start a call on a seat with room. False if none is due."""
    cdef Call* call = due_call(crowd, now_ns)
    if call == NULL:
        return False
    call.sent_ns = now_ns
    seat.dirty = True
    if connection_call(seat.connection, call):
        call.next = crowd.again
        crowd.again = call
        return False
    return True


cdef void offer(Crowd* crowd, int64_t now_ns) noexcept nogil:
    """Open loop: send what is due, one call on each connection in turn, and write once per connection."""
    cdef int i, full = 0
    while full < crowd.seat_count:
        if not room(crowd, &crowd.seats[crowd.turn]):
            full += 1
        elif call_on(crowd, &crowd.seats[crowd.turn], now_ns):
            full = 0
        else:
            break
        crowd.turn = (crowd.turn + 1) % crowd.seat_count
    for i in range(crowd.seat_count):
        if crowd.seats[i].dirty:
            flush(crowd, &crowd.seats[i], now_ns)


cdef void handle(Crowd* crowd, Seat* seat, int64_t now_ns) noexcept nogil:
    """Do what a connection's socket is ready for."""
    cdef Connection* connection = seat.connection
    if connection.connecting:
        if not connection_established(connection):
            leave(crowd, seat, now_ns)
            return
        crowd.tally.connects += 1
        seat.backoff_ns = FIRST_BACKOFF_NS
    elif not connection_read(connection, crowd.buffer):
        leave(crowd, seat, now_ns)
        return
    if not seat.retired and not connection_open(connection):
        retire(crowd, seat, now_ns)
        seat = crowd.retired
        if seat == NULL or seat.connection != connection:
            return
    if not seat.retired and crowd.arrivals.interval_ns == 0:
        while room(crowd, seat) and call_on(crowd, seat, now_ns):
            pass
    flush(crowd, seat, now_ns)


cdef void expire(Crowd* crowd, int64_t now_ns) noexcept nogil:
    """End what has waited longer than the timeout."""
    cdef int i
    cdef Seat* seat = crowd.retired
    cdef Seat* next_seat
    while seat != NULL:
        next_seat = seat.next
        connection_expire(seat.connection, now_ns - crowd.timeout_ns)
        flush(crowd, seat, now_ns)
        seat = next_seat
    for i in range(crowd.seat_count):
        seat = &crowd.seats[i]
        if seat.connection != NULL and not seat.connection.connecting:
            connection_expire(seat.connection, now_ns - crowd.timeout_ns)
            while crowd.arrivals.interval_ns == 0 and room(crowd, seat) and call_on(crowd, seat, now_ns):
                pass
            flush(crowd, seat, now_ns)
    # Often enough to be late by a hundredth of the timeout at most, or by a millisecond.
    crowd.expire_at_ns = now_ns + max(crowd.timeout_ns // 100, 1_000_000)


# --- the loop ---------------------------------------------------------------------------------------


cdef bint crowd_finished(const Crowd* crowd) noexcept nogil:
    """Whether the limit's last call has ended."""
    return crowd.limit > 0 and crowd.ended == crowd.limit


cdef int64_t wake_ns(const Crowd* crowd, int64_t until_ns, int64_t now_ns) noexcept nogil:
    """When to look again if no socket stirs until then."""
    cdef int i
    cdef int64_t at = until_ns
    # What is overdue waits for room, and so for a socket.
    if crowd.arrivals.interval_ns and crowd.arrivals.due_ns > now_ns and not (crowd.limit and crowd.started == crowd.limit):
        at = min(at, <int64_t>crowd.arrivals.due_ns)
    if crowd.timeout_ns:
        at = min(at, crowd.expire_at_ns)
    if crowd.empty_seats:
        for i in range(crowd.seat_count):
            if crowd.seats[i].connection == NULL:
                at = min(at, crowd.seats[i].connect_at_ns)
    return at


cdef void crowd_work(Crowd* crowd, int64_t until_ns) noexcept nogil:
    """Offer the load until then, or until the limit's last call has ended."""
    cdef epoll_event[EVENTS] events
    cdef int i, count
    cdef int64_t at, ticks
    cdef int64_t now_ns = monotonic_ns()
    be_punctual()
    while now_ns < until_ns and not crowd_finished(crowd):
        if crowd.empty_seats:
            connect(crowd, now_ns)
        if crowd.arrivals.interval_ns:
            offer(crowd, now_ns)
        if crowd.timeout_ns and crowd.expire_at_ns <= now_ns:
            expire(crowd, now_ns)
        at = wake_ns(crowd, until_ns, now_ns)
        if at != crowd.timer_at_ns:
            crowd.timer_at_ns = at
            set_timer(crowd.timer, at)
        count = epoll_wait(crowd.epoll, events, EVENTS, -1)
        now_ns = monotonic_ns()
        for i in range(count):
            if events[i].data.ptr == NULL:
                read(crowd.timer, &ticks, sizeof(ticks))
                crowd.timer_at_ns = 0
            else:
                handle(crowd, <Seat*>events[i].data.ptr, now_ns)


cdef void crowd_report(Crowd* crowd, Slice made) noexcept:
    """Write down how things stand at the end of a slice."""
    cdef int i
    cdef int64_t now_ns = monotonic_ns()
    cdef int64_t due_ns = <int64_t>crowd.arrivals.due_ns
    cdef Connection* connection
    cdef Seat* seat = crowd.retired
    made.end_ns = now_ns
    made.in_flight = crowd.started - crowd.ended
    if crowd.arrivals.interval_ns and due_ns < now_ns and not (crowd.limit and crowd.started == crowd.limit):
        made.overdue = 1 + <int64_t>((now_ns - crowd.arrivals.due_ns) / crowd.arrivals.interval_ns)
        made.oldest_ns = now_ns - due_ns
    while seat != NULL:
        count_bytes(crowd, seat.connection)
        seat = seat.next
    for i in range(crowd.seat_count):
        connection = crowd.seats[i].connection
        if connection != NULL:
            count_bytes(crowd, connection)
            if connection.first != NULL:
                made.oldest_ns = max(made.oldest_ns, now_ns - connection.first.due_ns)


cdef int crowd_open(Crowd* crowd, int connections) noexcept nogil:
    """Make room for so many connections. Not 0, with errno, if there is no memory or no file; then free it."""
    cdef int i
    crowd.epoll = crowd.timer = -1
    crowd.seats = <Seat*>calloc(connections, sizeof(Seat))
    crowd.buffer = <uint8_t*>malloc(READ_BYTES)
    if crowd.seats == NULL or crowd.buffer == NULL:
        return -1
    crowd.seat_count = crowd.empty_seats = connections
    for i in range(connections):
        crowd.seats[i].backoff_ns = FIRST_BACKOFF_NS
    crowd.script.ended = on_ended
    crowd.script.owner = crowd
    crowd.epoll = epoll_create1(EPOLL_CLOEXEC)
    crowd.timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)
    if crowd.epoll < 0 or crowd.timer < 0:
        return -1
    watch(crowd.epoll, EPOLL_CTL_ADD, crowd.timer, NULL, False)
    return 0


cdef void crowd_leave(Crowd* crowd) noexcept nogil:
    """Close all connections; what is under way ends with them."""
    cdef int i
    while crowd.retired != NULL:
        leave(crowd, crowd.retired, 0)
    for i in range(crowd.seat_count):
        if crowd.seats[i].connection != NULL:
            leave(crowd, &crowd.seats[i], 0)


cdef void free_calls(Call* call) noexcept nogil:
    cdef Call* following
    while call != NULL:
        following = call.next
        free(call.answer)
        free(call)
        call = following


cdef void crowd_free(Crowd* crowd) noexcept nogil:
    """Give back what the crowd owns; its connections are closed already."""
    if crowd.epoll >= 0:
        close(crowd.epoll)
    if crowd.timer >= 0:
        close(crowd.timer)
    free_calls(crowd.spare)
    free_calls(crowd.again)
    free(crowd.seats)
    free(crowd.buffer)
