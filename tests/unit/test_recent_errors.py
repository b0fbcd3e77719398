"""What an operator reads of the errors that clients were told."""

from __future__ import annotations

from itertools import count

from inferd.errors import Internal, InvalidRequest, UnknownModel
from inferd.telemetry.recent import RecentErrors


def recent(kept: int = 50) -> RecentErrors:
    return RecentErrors(kept, count(1.0).__next__)


def test_the_latest_comes_first() -> None:
    errors = recent()
    for text in ("one", "two"):
        errors.note(InvalidRequest(text))
    assert [told.text for told in errors.listed()] == ["two", "one"]


def test_the_same_text_is_counted_and_moves_up() -> None:
    errors = recent()
    for failure in (UnknownModel("a"), InvalidRequest("b"), UnknownModel("a")):
        errors.note(failure)
    first = errors.listed()[0]
    assert (first.code, first.text, first.count, first.last_s) == ("NOT_FOUND", "a", 2, 3.0)


def test_no_more_are_kept_than_allowed() -> None:
    errors = recent(kept=3)
    for number in range(10):
        errors.note(InvalidRequest(str(number)))
    assert [told.text for told in errors.listed()] == ["9", "8", "7"]


def test_a_bug_of_ours_is_told_as_clients_were_told_it() -> None:
    errors = recent()
    errors.note(Internal("frame 7 of /srv/secret is odd"))
    assert "secret" not in errors.listed()[0].text
