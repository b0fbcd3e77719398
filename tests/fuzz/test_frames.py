"""The reader that judges a server: it takes what is right, and names what is wrong."""

from __future__ import annotations

import frames
import hpack
import pytest
from frames import DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, PUSH_PROMISE, RST_STREAM, Frame

WHOLE = END_HEADERS | END_STREAM


def head(*headers: tuple[str, str]) -> bytes:
    return bytes(hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*one) for one in headers]))


FIRST = Frame(HEADERS, END_HEADERS, 1, head((":status", "200"), ("content-type", "application/grpc")))
BODY = Frame(DATA, 0, 1, b"\0\0\0\0\2ok")
LAST = Frame(HEADERS, WHOLE, 1, head(("grpc-status", "0")))
RESET = Frame(RST_STREAM, 0, 1, bytes(3) + b"\7")
ENOUGH = Frame(RST_STREAM, 0, 1, bytes(4))


def told(*sent: Frame) -> frames.Server:
    return frames.told(b"".join(frame.bytes() for frame in sent))


@pytest.mark.parametrize(
    ("sent", "ends"),
    [
        ((FIRST, BODY, LAST), 1),
        ((FIRST, BODY, LAST, ENOUGH), 1),
        ((FIRST, BODY, RESET), 1),
        ((RESET,), 1),
        ((FIRST, BODY), 0),
        ((FIRST, BODY, LAST, RESET), 2),
    ],
)
def test_ends_are_counted(sent: tuple[Frame, ...], ends: int) -> None:
    assert told(*sent).streams[1].ends() == ends


@pytest.mark.parametrize(
    ("sent", "wrong"),
    [
        ((FIRST, LAST, BODY), "follows the end"),
        ((RESET, FIRST), "follows the reset"),
        ((RESET, RESET), "is reset twice"),
        ((FIRST, FIRST), "does not end its stream"),
        ((BODY,), "is not between headers and trailers"),
        ((FIRST, Frame(DATA, 0, 1, b"\0\0\0\0\3ok"), LAST), "half a message"),
        ((FIRST, Frame(DATA, 0, 1, b"\2\0\0\0\0"), LAST), "compressed flag"),
        ((FIRST._replace(flags=0), LAST), "in the middle of headers"),
        ((FIRST._replace(flags=0),), "the last headers are cut short"),
        ((Frame(PUSH_PROMISE, END_HEADERS, 1, bytes(3) + b"\2"),), "a server does not send"),
    ],
)
def test_what_no_server_may_send_is_named(sent: tuple[Frame, ...], wrong: str) -> None:
    with pytest.raises(AssertionError, match=wrong):
        told(*sent)


def test_a_frame_cut_short_is_no_frame() -> None:
    with pytest.raises(AssertionError, match="cut short"):
        frames.told(FIRST.bytes() + BODY.bytes()[:-1])


def test_goaways_and_what_is_sent_are_kept() -> None:
    server = told(FIRST, BODY, Frame(GOAWAY, 0, 0, bytes(3) + b"\1" + bytes(3) + b"\2"))
    assert (server.goaways, server.sent) == ([(1, 2)], 7)


def test_a_client_is_read_as_far_as_it_keeps_to_the_order() -> None:
    asked = Frame(HEADERS, END_HEADERS, 1), Frame(DATA, END_STREAM, 1), Frame(HEADERS, 1, 3), Frame(DATA, 0, 1)
    client = frames.asked(PREFACE + b"".join(frame.bytes() for frame in asked))
    assert not client.is_orderly
    assert {number: (stream.is_whole, stream.is_orderly) for number, stream in client.streams.items()} == {
        1: (True, True),
        3: (False, True),
    }
