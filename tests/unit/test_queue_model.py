"""The queue against a plain-Python model of it, over random histories."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule
from queued import queue, request

from inferd._native.wire import Request
from inferd.errors import NotReady, Overloaded

WIDTHS = st.sampled_from([1, 2, 1, 3, 400, 0])
DEADLINES = st.none() | st.integers(-2, 30)
CLASSES = {0: 0, 1: 3, 2: 4, 3: 4, 400: 11}  # bits in the bytes of one row, by its width


@dataclass(eq=False)
class Entry:
    request: Request
    width: int
    rows: int
    arrived_ns: int
    deadline_ns: int

    @property
    def nbytes(self) -> int:
        return 4 * self.width * self.rows


class Model:
    """What the queue should do, written for reading and not for speed."""

    def __init__(self, batch_rows: int, max_rows: int, max_bytes: int, delay_ns: int, preferred: list[int]) -> None:
        self.max_rows, self.max_bytes, self.delay_ns, self.preferred = max_rows, max_bytes, delay_ns, preferred
        self.batch_rows = dict.fromkeys(range(64), batch_rows)
        self.short_rows = dict.fromkeys(range(64), 0)
        self.waiting: list[Entry] = []
        self.full: list[int] = []  # widths, in the order in which their groups became full
        self.first_deadline_ns = 0
        self.closed = False

    def group(self, width: int) -> list[Entry]:
        return [entry for entry in self.waiting if entry.width == width]

    def limit(self, width: int) -> int:
        rows = sum(entry.rows for entry in self.group(width))
        most = self.batch_rows[CLASSES[width]]
        return max([size for size in self.preferred if size <= min(rows, most)], default=most)

    def review(self, width: int) -> None:
        rows = sum(entry.rows for entry in self.group(width))
        fills = rows > 0 and rows >= self.limit(width)
        if fills and width not in self.full:
            self.full.append(width)
        if not fills and width in self.full:
            self.full.remove(width)

    def admits(self, entry: Entry) -> bool:
        rows = sum(other.rows for other in self.waiting) + entry.rows
        nbytes = sum(other.nbytes for other in self.waiting) + entry.nbytes
        return not self.waiting or (rows <= self.max_rows and nbytes <= self.max_bytes)

    def put(self, entry: Entry) -> None:
        self.waiting.append(entry)
        deadlines = [ns for ns in (self.first_deadline_ns, entry.deadline_ns) if ns]
        self.first_deadline_ns = min(deadlines, default=0)
        self.review(entry.width)

    def remove(self, entry: Entry) -> None:
        self.waiting.remove(entry)
        self.review(entry.width)

    def next(self, now_ns: int) -> tuple[int, str] | None:
        if not self.waiting:
            return None
        head = self.waiting[0]
        if self.delay_ns == 0 or self.closed:
            return head.width, "ready"
        if now_ns - head.arrived_ns >= self.delay_ns:
            return head.width, "delay"
        if self.full:
            return self.full[0], "full"
        return None

    def take(self, now_ns: int, *, only_short: bool = False) -> tuple[list[Entry], str] | None:
        found = self.next(now_ns)
        if found is None:
            return None
        width, reason = found
        group = self.group(width)
        # What may be cut at most, before rows that do not fit are left behind.
        most = min(sum(entry.rows for entry in group), max(self.limit(width), group[0].rows))
        if only_short and most > self.short_rows[CLASSES[width]]:
            return None
        return self.cut(width), reason

    def cut(self, width: int) -> list[Entry]:
        limit, members = self.limit(width), list[Entry]()
        for entry in self.group(width):
            if members and sum(member.rows for member in members) + entry.rows > limit:
                break
            members.append(entry)
        for entry in members:
            self.remove(entry)
        return members

    def expire(self, now_ns: int) -> list[Entry]:
        late = [entry for entry in self.waiting if 0 < entry.deadline_ns <= now_ns]
        if self.first_deadline_ns and now_ns >= self.first_deadline_ns:
            for entry in late:
                self.remove(entry)
            self.first_deadline_ns = min([entry.deadline_ns for entry in self.waiting if entry.deadline_ns], default=0)
        return late

    def due_ns(self) -> int | None:
        if not self.waiting:
            return None
        due = self.waiting[0].arrived_ns
        if self.delay_ns == 0 or self.closed or self.full:
            return due
        return min(due + self.delay_ns, self.first_deadline_ns or due + self.delay_ns)


class QueueAndModel(RuleBasedStateMachine):
    """Does the same to both and compares all that can be seen."""

    dropped = Bundle("dropped")  # these may be put again

    @initialize(
        batch_rows=st.integers(1, 6),
        max_rows=st.sampled_from([3, 20, 100, 100]),
        max_bytes=st.sampled_from([40, 1 << 20, 1 << 20]),
        delay_ns=st.sampled_from([0, 5, 50]),
        preferred=st.lists(st.integers(1, 8), max_size=2),
    )
    def make(self, batch_rows: int, max_rows: int, max_bytes: int, delay_ns: int, preferred: list[int]) -> None:
        self.queue = queue(
            batch_rows=batch_rows,
            max_queue_rows=max_rows,
            max_queue_bytes=max_bytes,
            max_delay_ns=delay_ns,
            preferred_rows=tuple(preferred),
        )
        self.model = Model(batch_rows, max_rows, max_bytes, delay_ns, preferred)
        self.now_ns = 1
        self.left: list[Entry] = []  # taken or expired: these never come back

    @rule(rows=st.integers(1, 7), width=WIDTHS, deadline_in_ns=DEADLINES)
    def put(self, rows: int, width: int, deadline_in_ns: int | None) -> None:
        self.put_again(Entry(request(rows, width), width, rows, 0, 0), deadline_in_ns)

    @rule(entry=consumes(dropped), deadline_in_ns=DEADLINES)
    def put_again(self, entry: Entry, deadline_in_ns: int | None) -> None:
        deadline_ns = 0 if deadline_in_ns is None else max(self.now_ns + deadline_in_ns, 1)
        entry.arrived_ns, entry.deadline_ns = self.now_ns, deadline_ns
        entry.request.deadline_ns = deadline_ns
        refusal = NotReady if self.model.closed else None if self.model.admits(entry) else Overloaded
        if refusal is not None:
            with pytest.raises(refusal):
                self.queue.put(entry.request, self.now_ns)
            return
        self.queue.put(entry.request, self.now_ns)
        self.model.put(entry)

    @precondition(lambda self: self.model.waiting)
    @rule(target=dropped, data=st.data())
    def drop(self, data: st.DataObject) -> Entry:
        entry = data.draw(st.sampled_from(self.model.waiting), label="dropped")
        assert self.queue.drop(entry.request)
        self.model.remove(entry)
        return entry

    @precondition(lambda self: self.left)
    @rule(data=st.data())
    def nothing_comes_back(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.left), label="gone")
        assert not self.queue.drop(entry.request)
        if not self.model.closed:
            with pytest.raises(ValueError, match="put twice"):
                self.queue.put(entry.request, self.now_ns)

    @rule(passed_ns=st.sampled_from([0, 1, 6, 60]), only_short=st.booleans())
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
        self.left.extend(members)

    @rule(passed_ns=st.sampled_from([0, 1, 6, 60]))
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
                self.model.review(entry.width)

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
        waiting = self.model.waiting
        assert self.queue.requests == len(waiting)
        assert self.queue.rows == sum(entry.rows for entry in waiting)
        assert self.queue.bytes == sum(entry.nbytes for entry in waiting)
        assert self.queue.due_ns() == self.model.due_ns()

    def teardown(self) -> None:
        """All that is still there comes out, in whatever batches."""
        if not hasattr(self, "queue"):
            return
        self.queue.close()
        found = []
        while (batch := self.queue.take(self.now_ns)) is not None:
            found.extend(batch.members)
        assert sorted(map(id, found)) == sorted(id(entry.request) for entry in self.model.waiting)


TestQueueAgainstItsModel = QueueAndModel.TestCase
