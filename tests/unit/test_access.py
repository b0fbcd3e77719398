"""The ring of the access log, and what keeps the log from filling."""

from __future__ import annotations

import logging

import pytest
from queued import queue, request, taken

from inferd._native.access import AccessLog
from inferd._native.trace import Sampling, Traces
from inferd.telemetry.brake import EVERY_S, KINDS, MOST, Brake

NAMES = ("m", "1")


def test_an_entry_has_what_was_measured() -> None:
    noted, line, one = AccessLog(4), queue(), request(2, id="i" * 100)
    sampling = Sampling(Traces(1))
    sampling.on = True
    sampling.set_rate(1.0)
    one.trace = sampling.begin_at(0)
    assert one.trace is not None
    line.put(one, 100)
    taken(line.take(250))
    one.run_ns = 30
    noted.note(NAMES, one, 4, 90, 400, one.trace)
    ids = (one.trace.trace_id, one.trace.span_id)
    assert noted.take() == [(NAMES, 4, 400, 310, 150, 30, 2, False, b"i" * 64, *ids)]
    assert noted.take() == []


def test_a_request_that_was_refused_waited_for_nothing() -> None:
    noted = AccessLog(1)
    noted.note(NAMES, request(), 3, 10, 20)
    assert noted.take() == [(NAMES, 3, 20, 10, -1, 0, 1, False, b"", b"", b"")]


def test_what_there_is_no_room_for_is_dropped_and_counted() -> None:
    noted, one = AccessLog(3), request()
    for turn in range(3):
        for number in range(5):
            noted.note(NAMES, one, 0, 0, 10 * turn + number)
        assert [entry[2] for entry in noted.take()] == [10 * turn + number for number in range(3)]
    assert noted.dropped == 6


def test_a_ring_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="room"):
        AccessLog(0)


def record(text: str, level: int = logging.WARNING, at_s: float = 0.0) -> logging.LogRecord:
    made = logging.LogRecord("inferd.runner", level, "", 0, text, (), None)
    made.created = at_s
    return made


def test_one_kind_of_trouble_is_told_so_often_and_then_counted() -> None:
    brake = Brake()
    assert [brake.lets(record("run failed")) for _ in range(MOST + 7)] == [True] * MOST + [False] * 7
    assert brake.lets(record("another thing"))
    other = record("run failed")
    other.model = "another model"
    assert brake.lets(other)
    later = record("run failed", at_s=EVERY_S)
    assert brake.lets(later)
    assert vars(later)["held_back"] == 7
    last = record("run failed", at_s=EVERY_S)
    assert brake.lets(last)
    assert "held_back" not in vars(last)


def test_what_is_no_trouble_is_not_held_back() -> None:
    brake = Brake()
    assert all(brake.lets(record("request", logging.INFO)) for _ in range(MOST + 1))


def test_more_kinds_than_can_be_told_apart_pass() -> None:
    brake = Brake()
    assert all(brake.lets(record(f"kind {number}")) for number in range(KINDS + 10))


def test_a_clock_that_goes_back_holds_nothing_for_ever() -> None:
    brake = Brake()
    for _ in range(MOST + 1):
        brake.lets(record("run failed", at_s=1000.0))
    assert brake.lets(record("run failed", at_s=10.0))
