"""Discrete events: requests arrive at random, a balancer gives each to a pod, pods run batches as inferd does. Pure.

A batch leaves as soon as an instance is free, with what waits then, up to the size that pays; it grows while all are
busy. With a delay it waits for that long at most, or until it is full.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

from inferd.plan.pod import Pod, Timings

Balancer = Literal["least_request", "round_robin", "random"]
BALANCERS: Final[tuple[Balancer, ...]] = ("least_request", "round_robin", "random")
# What happens, in the order in which it counts when it happens at one time.
_RAN, _READ, _DUE = 0, 1, 2
_UNCOUNTED = 0.1  # of the requests, while the queues find their length


@dataclass(frozen=True, slots=True)
class Load:
    """Requests per second over all pods, Poisson; `requests` of `rows` rows each are simulated."""

    rate: float
    pods: int
    requests: int = 50_000
    rows: int = 1
    balancer: Balancer = "least_request"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of it. Latencies in nanoseconds, from arrival at the pod to the answer leaving it."""

    arrived: int
    answered: int
    refused: int
    p50_ns: float
    p99_ns: float
    mean_ns: float
    mean_in_flight: float  # over all pods, by the clock
    busy: float  # part of the time that instances ran
    loop_busy: float  # part of the time that the event loops had work
    batch_requests: float
    elapsed_ns: float


class _State:
    """One pod while it is simulated."""

    __slots__ = ("active", "due_ns", "free", "loop_free_ns", "next_run", "waiting")

    def __init__(self, instances: int) -> None:
        self.waiting: deque[float] = deque()  # when each arrived
        self.free = instances
        self.active = 0
        self.loop_free_ns = 0.0
        self.due_ns = -1.0
        self.next_run = 0  # of the spread; a multiple of the stretch begins another one somewhere

    def spread(self, timings: Timings, random: Random) -> float:
        """How much longer the next run takes than the mean."""
        if self.next_run % timings.stretch == 0:
            self.next_run = random.randrange(len(timings.spread)) * timings.stretch
        at, self.next_run = self.next_run, self.next_run + 1
        return timings.spread[(at // timings.stretch + at % timings.stretch) % len(timings.spread)]


def simulate(pod: Pod, load: Load) -> Outcome:
    """The same for the same arguments."""
    return _Run(pod, load).outcome()


class _Run:
    def __init__(self, pod: Pod, load: Load) -> None:
        self._pod, self._load, self._random = pod, load, Random(load.seed)
        # On the loop there is room for one batch at a time, whatever the instances.
        self._pods = [_State(1 if pod.inline else pod.instances) for _ in range(load.pods)]
        self._events: list[tuple[float, int, int, int, list[float]]] = []
        self._order = 0
        self._batch = max(pod.max_rows // load.rows, 1)
        self._room = max(pod.max_queue_rows // load.rows, 1)
        self._run_ns = [0.0, *(pod.timings.of(count * load.rows) for count in range(1, self._batch + 1))]
        self._latencies: list[float] = []
        self._refused = self._batches = self._in_batches = 0
        self._busy_ns = self._loop_ns = self._in_flight_ns = 0.0
        self._turn = 0

    def outcome(self) -> Outcome:
        load, pod = self._load, self._pod
        gap_ns = 1e9 / load.rate
        now = last = arrival = 0.0
        in_flight = arrived = 0
        first_counted = int(load.requests * _UNCOUNTED)
        events = self._events
        while arrived < load.requests or events:
            if arrived < load.requests and (not events or arrival <= events[0][0]):
                now = arrival
                self._in_flight_ns += in_flight * (now - last)
                in_flight += self._arrive(now)
                arrived += 1
                arrival += self._random.expovariate(1.0) * gap_ns
            else:
                now, _, what, number, members = heapq.heappop(events)
                self._in_flight_ns += in_flight * (now - last)
                if what == _RAN:
                    in_flight -= len(members)
                    self._latencies.extend(now - one for one in members)
                    state = self._pods[number]
                    state.active -= len(members)
                    state.free += 1
                elif what == _READ:
                    self._pods[number].waiting.append(members[0])
                self._start(number, now)
            last = now
        counted = sorted(self._latencies[first_counted:]) or sorted(self._latencies) or [0.0]
        instances = load.pods * (1 if pod.inline else pod.instances)
        elapsed = max(now, 1.0)
        return Outcome(
            arrived=arrived,
            answered=len(self._latencies),
            refused=self._refused,
            p50_ns=counted[len(counted) // 2],
            p99_ns=counted[min(len(counted) - 1, int(len(counted) * 0.99))],
            mean_ns=sum(counted) / len(counted),
            mean_in_flight=self._in_flight_ns / elapsed,
            busy=self._busy_ns / instances / elapsed,
            loop_busy=(self._loop_ns + self._busy_ns * pod.inline) / load.pods / elapsed,
            batch_requests=self._in_batches / max(self._batches, 1),
            elapsed_ns=elapsed,
        )

    def _arrive(self, now: float) -> int:
        """1 if a pod took it, 0 if its queue was full."""
        number = self._choose()
        state = self._pods[number]
        if len(state.waiting) >= self._room:
            self._refused += 1
            return 0
        state.active += 1
        if self._pod.inline or not self._pod.request_ns:
            state.waiting.append(now)
            self._start(number, now)
        else:
            # The loop reads one request after the other.
            state.loop_free_ns = max(state.loop_free_ns, now) + self._pod.request_ns
            self._loop_ns += self._pod.request_ns
            self._push(state.loop_free_ns, _READ, number, [now])
        return 1

    def _choose(self) -> int:
        count = len(self._pods)
        if count == 1:
            return 0
        if self._load.balancer == "round_robin":
            self._turn = (self._turn + 1) % count
            return self._turn
        one = int(self._random.random() * count)
        if self._load.balancer == "random":
            return one
        other = int(self._random.random() * count)
        return other if self._pods[other].active < self._pods[one].active else one

    def _start(self, number: int, now: float) -> None:
        state, pod = self._pods[number], self._pod
        while state.free and state.waiting:
            # A delay counts from when the oldest came, and the clock's last digit shall not keep it waiting.
            if pod.max_delay_ns and len(state.waiting) < self._batch:
                due_ns = state.waiting[0] + pod.max_delay_ns
                if now < due_ns:
                    if state.due_ns != due_ns:
                        state.due_ns = due_ns
                        self._push(due_ns, _DUE, number, [])
                    return
            members = [state.waiting.popleft() for _ in range(min(len(state.waiting), self._batch))]
            run_ns = self._run_ns[len(members)]
            if len(pod.timings.spread) > 1:
                run_ns *= state.spread(pod.timings, self._random)
            run_ns += len(members) * pod.request_ns if pod.inline else pod.hop_ns
            state.free -= 1
            self._busy_ns += run_ns
            self._batches += 1
            self._in_batches += len(members)
            self._push(now + run_ns, _RAN, number, members)

    def _push(self, at_ns: float, what: int, number: int, members: list[float]) -> None:
        self._order += 1
        # The order keeps ties from comparing what they carry.
        heapq.heappush(self._events, (at_ns, what * 1_000_000_000 + self._order, what, number, members))
