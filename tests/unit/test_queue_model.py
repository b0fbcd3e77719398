"""The queue against a plain-Python model of it, over random histories."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule
from queued import queue, request

from inferd._native.admission import Admission
from inferd._native.schedule import Schedule
from inferd._native.wire import Request
from inferd.errors import NotReady, Overloaded
from inferd.repository import QueuePolicy

WIDTHS = st.sampled_from([1, 2, 1, 1, 2, 1, 3, 400, 0])
DEADLINES = st.none() | st.integers(-2, 30)
TIMEOUTS_US = st.sampled_from([0, 0, 1, 2])
CALLERS = st.sampled_from([0, 1, 1, 2, 1, 3])
PRIORITIES = st.sampled_from([3, 0, 2, 1, 4, 5])
PASSED_OVER = 8
CLASSES = {0: 0, 1: 3, 2: 4, 3: 4, 400: 11}  # bits in the bytes of one row, by its width


Key = tuple[int, int]


@dataclass(frozen=True)
class Plan:
    """What a schedule says; without one there is a level that says nothing."""

    policies: tuple[QueuePolicy, ...] = (QueuePolicy(),)
    default_level: int = 1
    patience_ns: int = 0
    in_order: bool = False

    def schedule(self) -> Schedule:
        return Schedule(
            self.policies, default_level=self.default_level, patience_ns=self.patience_ns, in_order=self.in_order
        )


ANY, TWO = QueuePolicy(), QueuePolicy(max_queue_size=2)
REJECT, REJECT_ASKED = QueuePolicy("reject", 40), QueuePolicy("reject", 0, True)
DELAY, DELAY_SOONER = QueuePolicy("delay", 5), QueuePolicy("delay", 1500, True)
PLANS: tuple[Plan | None, ...] = (
    None,
    Plan((ANY, ANY), 2, patience_ns=10),
    Plan((ANY, TWO, ANY, ANY), 3, patience_ns=60),
    Plan((REJECT, DELAY, REJECT_ASKED)),
    Plan((DELAY,)),
    Plan((DELAY_SOONER, DELAY), 2, patience_ns=10),
    Plan((REJECT_ASKED, QueuePolicy("delay"), QueuePolicy("delay", 40, False, 2)), 1, patience_ns=5),
    Plan(in_order=True),
    Plan((REJECT,), in_order=True),
)

WEIGHTS = (1, 1, 3)
"""Of each caller."""


@dataclass(eq=False)
class Entry:
    request: Request
    width: int
    rows: int
    priority: int
    timeout_us: int
    caller: int = 0
    level: int = 0
    line: int = 0
    is_parked: bool = False
    arrived_ns: int = 0
    deadline_ns: int = 0
    until_ns: int = 0
    run: int = 0  # in order, requests of one shape that came one after the other

    @property
    def nbytes(self) -> int:
        return 4 * self.width * self.rows


class Model:
    """What the queue should do, written for reading and not for speed."""

    def __init__(
        self, batch_rows: int, max_rows: int, max_bytes: int, delay_ns: int, preferred: list[int], plan: Plan | None
    ) -> None:
        self.plan = plan or Plan()
        self.skipped = [0] * len(self.plan.policies)
        self.late_line = len(self.plan.policies)
        self.turns = self.runs = 0
        self.max_rows, self.max_bytes, self.delay_ns, self.preferred = max_rows, max_bytes, delay_ns, preferred
        self.batch_rows = dict.fromkeys(range(64), batch_rows)
        self.short_rows = dict.fromkeys(range(64), 0)
        self.waiting: list[Entry] = []  # in order of service: by line, and then as they came to be in it
        self.parked: list[Entry] = []  # behind others of their caller, of each the oldest first
        delays = any(
            policy.timeout_action == "delay" and (policy.default_timeout_ns or policy.allow_timeout_override)
            for policy in self.plan.policies
        )
        self.flows: list[Key] = []  # in the order in which they began
        self.takes_turns = not self.plan.in_order and not delays
        self.full: list[Key] = []  # in the order in which their groups became full
        self.first_deadline_ns = 0
        self.closed = False

    def group(self, key: Key) -> list[Entry]:
        return [entry for entry in self.waiting if (entry.width, entry.run) == key]

    def limit(self, key: Key) -> int:
        rows = sum(entry.rows for entry in self.group(key))
        most = self.batch_rows[CLASSES[key[0]]]
        return max([size for size in self.preferred if size <= min(rows, most)], default=most)

    def review(self, key: Key) -> None:
        rows = sum(entry.rows for entry in self.group(key))
        fills = rows > 0 and rows >= self.limit(key)
        if fills and key not in self.full:
            self.full.append(key)
        if not fills and key in self.full:
            self.full.remove(key)

    def level_of(self, priority: int) -> int:
        return (priority if 1 <= priority <= len(self.plan.policies) else self.plan.default_level) - 1

    def admits(self, entry: Entry) -> bool:
        level = self.level_of(entry.priority)
        most = self.plan.policies[level].max_queue_size
        if most and sum(other.level == level for other in self.all) >= most:
            return False
        rows = sum(other.rows for other in self.all) + entry.rows
        nbytes = sum(other.nbytes for other in self.all) + entry.nbytes
        return not self.all or (rows <= self.max_rows and nbytes <= self.max_bytes)

    def put(self, entry: Entry, now_ns: int) -> None:
        entry.arrived_ns, entry.level = now_ns, self.level_of(entry.priority)
        policy = self.plan.policies[entry.level]
        asked_ns = now_ns + 1000 * entry.timeout_us if entry.timeout_us else 0
        said_ns = now_ns + policy.default_timeout_ns if policy.default_timeout_ns else 0
        if policy.allow_timeout_override:
            said_ns = soonest(said_ns, asked_ns)
        elif not said_ns and policy.timeout_action == "reject":
            entry.deadline_ns = soonest(entry.deadline_ns, asked_ns)
        entry.until_ns = said_ns
        if self.plan.in_order:
            last = self.waiting[-1] if self.waiting else None
            self.runs += 1
            entry.run = last.run if last is not None and last.width == entry.width else self.runs
        self.begin_flow(entry)
        if self.has_to_park(entry):
            entry.is_parked = True
            self.parked.append(entry)
        else:
            self.queue_up(entry, entry.level)
        self.first_deadline_ns = soonest(self.first_deadline_ns, entry.deadline_ns, entry.until_ns)
        self.review(key_of(entry))

    @property
    def all(self) -> list[Entry]:
        return [*self.waiting, *self.parked]

    def flow(self, entry: Entry) -> Key | None:
        return (entry.caller, entry.level) if entry.caller and self.takes_turns else None

    def rows_in_line(self, flow: Key) -> int:
        return sum(one.rows for one in self.waiting if self.flow(one) == flow)

    def place_in_table(self, entry: Entry) -> Key:
        """Callers by their number, of one the level that began last comes first."""
        flow = self.flow(entry)
        assert flow is not None
        return flow[0], -self.flows.index(flow)

    def begin_flow(self, entry: Entry) -> None:
        """The second one to come has the first one's surplus parked, the newest first."""
        present = {self.flow(one) for one in self.all}
        self.flows = [flow for flow in self.flows if flow in present]
        flow = self.flow(entry)
        if flow is None or flow in self.flows:
            return
        self.flows.append(flow)
        if len(self.flows) != 2:
            return
        other = self.flows[0]
        for one in [one for one in reversed(self.waiting) if self.flow(one) == other]:
            if self.rows_in_line(other) <= max(self.most(one), one.rows):
                return
            self.waiting.remove(one)
            self.review(key_of(one))
            one.is_parked = True
            self.parked.insert(0, one)

    def has_to_park(self, entry: Entry) -> bool:
        flow = self.flow(entry)
        if flow is None:
            return False
        flows = {flow, *(found for one in self.all if (found := self.flow(one)))}
        return any(self.flow(one) == flow for one in self.parked) or (len(flows) > 1 and not self.fits(entry, flow))

    def fits(self, entry: Entry, flow: Key) -> bool:
        rows = self.rows_in_line(flow)
        return rows == 0 or rows + entry.rows <= self.most(entry)

    def most(self, entry: Entry) -> int:
        """Rows that a caller may have in line once there are others: a batch for each unit of its weight."""
        return self.batch_rows[CLASSES[entry.width]] * WEIGHTS[entry.caller - 1]

    def refill(self, gone: list[Entry]) -> None:
        """Those who left the line are followed by their own, first those of whom one left first."""
        for flow in dict.fromkeys(flow for one in gone if (flow := self.flow(one))):
            for one in [one for one in self.parked if self.flow(one) == flow]:
                if not self.fits(one, flow):
                    break
                self.parked.remove(one)
                one.is_parked = False
                self.queue_up(one, one.level)
                self.review(key_of(one))
        for one in gone:
            one.is_parked = False

    def queue_up(self, entry: Entry, line: int) -> None:
        entry.line = line
        self.waiting.insert(sum(other.line <= line for other in self.waiting), entry)

    def remove(self, entry: Entry) -> None:
        if entry.is_parked:
            self.parked.remove(entry)
            return
        self.waiting.remove(entry)
        self.review(key_of(entry))

    def heads(self) -> list[Entry]:
        """The first of each line, that of late requests only if there are no others."""
        found: dict[int, Entry] = {}
        for entry in self.waiting:
            found.setdefault(entry.line, entry)
        return [head for line, head in found.items() if line < self.late_line or len(found) == 1]

    def fullest(self) -> Entry | None:
        firsts = [self.group(key)[0] for key in self.full]
        if self.plan.in_order:
            firsts = [first for first in firsts if first is self.waiting[0]]
        first = min(firsts, key=lambda one: one.line, default=None)
        return first if first and (first.line < self.late_line or self.heads()[0].line == self.late_line) else None

    def next(self, now_ns: int) -> tuple[Entry, str] | None:
        heads = self.heads()
        for head in heads:
            if (
                self.plan.patience_ns
                and 0 < head.line < self.late_line
                and self.skipped[head.line] >= PASSED_OVER
                and now_ns - head.arrived_ns >= self.plan.patience_ns
            ):
                return head, "turn"
        for head in heads:
            if self.delay_ns == 0 or self.closed:
                return head, "ready"
            if now_ns - head.arrived_ns >= self.delay_ns:
                return head, "delay"
        first = self.fullest()
        return None if first is None else (first, "full")

    def take(self, now_ns: int, *, only_short: bool = False) -> tuple[list[Entry], str] | None:
        found = self.next(now_ns)
        if found is None:
            return None
        head, reason = found
        # What may be cut at most, before rows that do not fit are left behind.
        rows = sum(entry.rows for entry in self.group(key_of(head)))
        most = min(rows, max(self.limit(key_of(head)), head.rows))
        if only_short and most > self.short_rows[CLASSES[head.width]]:
            return None
        return self.cut(head), reason

    def cut(self, head: Entry) -> list[Entry]:
        limit, members = self.limit(key_of(head)), [head]
        for entry in self.group(key_of(head)):
            if entry is head:
                continue
            if sum(member.rows for member in members) + entry.rows > limit:
                break
            members.append(entry)
        for level in range(len(self.skipped)):
            if level == head.line:
                self.skipped[level] = 0
            elif level > head.line and any(entry.line == level for entry in self.waiting):
                self.skipped[level] += 1
        for entry in members:
            self.remove(entry)
        self.refill(members)
        self.turns += self.plan.in_order
        return members

    def expire(self, now_ns: int) -> list[Entry]:
        late: list[Entry] = []
        if not self.first_deadline_ns or now_ns < self.first_deadline_ns:
            return late
        for entry in [*self.waiting, *sorted(self.parked, key=self.place_in_table)]:
            is_over = 0 < entry.until_ns <= now_ns
            if 0 < entry.deadline_ns <= now_ns:
                late.append(entry)
            elif is_over and self.plan.policies[entry.level].timeout_action == "delay":
                self.waiting.remove(entry)
                self.queue_up(entry, self.late_line)
                entry.until_ns = 0
            elif is_over:
                late.append(entry)
        for entry in late:
            self.remove(entry)
        self.refill(late)
        self.first_deadline_ns = soonest(*(ns for one in self.all for ns in (one.deadline_ns, one.until_ns)))
        return late

    def due_ns(self) -> int | None:
        if not self.waiting:
            return None
        due = min(head.arrived_ns for head in self.heads())
        if self.delay_ns == 0 or self.closed or self.fullest():
            return due
        return soonest(due + self.delay_ns, self.first_deadline_ns)


def key_of(entry: Entry) -> Key:
    return entry.width, entry.run


def soonest(*times_ns: int) -> int:
    return min((ns for ns in times_ns if ns), default=0)


class QueueAndModel(RuleBasedStateMachine):
    """Does the same to both and compares all that can be seen."""

    dropped = Bundle("dropped")  # these may be put again

    @initialize(
        batch_rows=st.integers(1, 6),
        max_rows=st.sampled_from([3, 20, 100, 100]),
        max_bytes=st.sampled_from([40, 1 << 20, 1 << 20]),
        delay_ns=st.sampled_from([0, 5, 50]),
        preferred=st.lists(st.integers(1, 8), max_size=2),
        plan=st.sampled_from(PLANS),
    )
    def make(
        self, batch_rows: int, max_rows: int, max_bytes: int, delay_ns: int, preferred: list[int], plan: Plan | None
    ) -> None:
        self.queue = queue(
            batch_rows=batch_rows,
            max_queue_rows=max_rows,
            max_queue_bytes=max_bytes,
            max_delay_ns=delay_ns,
            preferred_rows=tuple(preferred),
            schedule=None if plan is None else plan.schedule(),
        )
        self.admission = Admission()
        self.callers = [self.admission.caller(f"{number}", weight) for number, weight in enumerate(WEIGHTS)]
        self.model = Model(batch_rows, max_rows, max_bytes, delay_ns, preferred, plan)
        self.now_ns = 1
        self.left: list[Entry] = []  # taken or expired: these never come back

    @rule(
        rows=st.integers(1, 7),
        width=WIDTHS,
        deadline_in_ns=DEADLINES,
        priority=PRIORITIES,
        timeout_us=TIMEOUTS_US,
        caller=CALLERS,
    )
    def put(
        self, rows: int, width: int, deadline_in_ns: int | None, priority: int, timeout_us: int, caller: int
    ) -> None:
        made = request(rows, width, priority=priority, timeout_us=timeout_us)
        if caller:
            self.admission.admit(made, self.callers[caller - 1])
        self.put_again(Entry(made, width, rows, priority, timeout_us, caller), deadline_in_ns)

    @rule(entry=consumes(dropped), deadline_in_ns=DEADLINES)
    def put_again(self, entry: Entry, deadline_in_ns: int | None) -> None:
        deadline_ns = 0 if deadline_in_ns is None else max(self.now_ns + deadline_in_ns, 1)
        entry.deadline_ns = entry.request.deadline_ns = deadline_ns
        refusal = NotReady if self.model.closed else None if self.model.admits(entry) else Overloaded
        if refusal is not None:
            with pytest.raises(refusal):
                self.queue.put(entry.request, self.now_ns)
            return
        self.queue.put(entry.request, self.now_ns)
        self.model.put(entry, self.now_ns)
        assert entry.request.deadline_ns == entry.deadline_ns

    @precondition(lambda self: self.model.all)
    @rule(target=dropped, data=st.data())
    def drop(self, data: st.DataObject) -> Entry:
        return self.drop_one(data.draw(st.sampled_from(self.model.all), label="dropped"))

    def drop_one(self, entry: Entry) -> Entry:
        assert self.queue.drop(entry.request)
        self.model.remove(entry)
        self.model.refill([entry])
        return entry

    @precondition(lambda self: self.left)
    @rule(data=st.data())
    def nothing_comes_back(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.left), label="gone")
        assert not self.queue.drop(entry.request)
        if not self.model.closed:
            with pytest.raises(ValueError, match="put twice"):
                self.queue.put(entry.request, self.now_ns)

    @rule(passed_ns=st.sampled_from([0, 1, 6, 60, 1000]), only_short=st.booleans())
    def take(self, passed_ns: int, only_short: bool) -> None:
        self.now_ns += passed_ns
        expected = self.model.take(self.now_ns, only_short=only_short)
        batch = self.queue.take_short(self.now_ns) if only_short else self.queue.take(self.now_ns)
        if expected is None:
            assert batch is None
            return
        members, reason = expected
        assert batch is not None
        assert batch.members == [entry.request for entry in members]
        assert batch.close_reason == reason
        assert batch.input_shape(0) == [batch.rows, members[0].width]
        assert batch.rows == sum(entry.rows for entry in members)
        assert batch.size_class == CLASSES[members[0].width]
        assert {entry.request.turn for entry in members} == {self.model.turns}
        self.left.extend(members)

    @rule(passed_ns=st.sampled_from([0, 1, 6, 60, 1000]))
    def expire(self, passed_ns: int) -> None:
        self.now_ns += passed_ns
        late = self.model.expire(self.now_ns)
        assert self.queue.expire(self.now_ns) == [entry.request for entry in late]
        self.left.extend(late)

    @rule(width=WIDTHS, rows=st.integers(0, 9))
    def learn(self, width: int, rows: int) -> None:
        self.queue.set_batch_rows(CLASSES[width], rows)
        self.model.batch_rows[CLASSES[width]] = max(rows, 1)
        for entry in list(self.model.waiting):
            if CLASSES[entry.width] == CLASSES[width]:
                self.model.review(key_of(entry))

    @rule(width=WIDTHS, rows=st.integers(0, 9))
    def learn_what_is_short(self, width: int, rows: int) -> None:
        self.queue.set_short_rows(CLASSES[width], rows)
        self.model.short_rows[CLASSES[width]] = rows

    @precondition(lambda self: len(self.left) > 5)
    @rule()
    def close(self) -> None:
        self.queue.close()
        self.model.closed = True

    @invariant()
    def sums_agree(self) -> None:
        waiting = self.model.all
        assert self.queue.requests == len(waiting)
        assert self.queue.rows == sum(entry.rows for entry in waiting)
        assert self.queue.bytes == sum(entry.nbytes for entry in waiting)
        assert self.queue.due_ns() == self.model.due_ns()
        assert self.queue.overdue_ns() == (self.model.first_deadline_ns or None if waiting else None)

    def teardown(self) -> None:
        """All that is still there comes out, in whatever batches."""
        if not hasattr(self, "queue"):
            return
        self.queue.close()
        found = []
        while (batch := self.queue.take(self.now_ns)) is not None:
            found.extend(batch.members)
        assert sorted(map(id, found)) == sorted(id(entry.request) for entry in self.model.all)


TestQueueAgainstItsModel = QueueAndModel.TestCase


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("delay_ns", [0, 20])
@pytest.mark.parametrize("callers", [(0,), (1, 1, 1, 2, 3)])
def test_a_long_history_of_a_busy_queue(plan: Plan | None, delay_ns: int, callers: tuple[int, ...]) -> None:
    """Chance alone rarely leads to a level that is passed over often enough, or to much that is late."""
    random, both = Random(20), QueueAndModel()
    both.make(batch_rows=3, max_rows=100, max_bytes=1 << 20, delay_ns=delay_ns, preferred=[], plan=plan)
    for _ in range(1500):
        waiting = both.model.all
        match random.choice("pppppptttxd" if len(waiting) < 30 else "pttttxd"):
            case "p":
                priority = random.choice((0, 1, 1, 1, 1, 2, 3, 4))
                timeout_us, deadline_ns = random.choice((0, 0, 1, 2)), random.choice((None, None, 30, 100))
                rows, width = random.choice((1, 1, 2)), random.choice((1, 1, 2, 3))
                both.put(rows, width, deadline_ns, priority, timeout_us, random.choice(callers))
            case "t":
                both.take(random.choice((0, 1, 6)), only_short=random.random() < 0.1)
            case "x":
                both.expire(random.choice((0, 1)))
            case "d" if waiting:
                both.drop_one(random.choice(waiting))
        both.sums_agree()
    both.teardown()
