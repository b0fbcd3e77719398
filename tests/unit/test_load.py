"""The load generator against servers that behave in every way a server can."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import h2.errors
import h2.settings
import pytest
from h2_server import Peer, ScriptedServer, serving

from inferd._native import load as native
from inferd._native.tally import Slice
from inferd.bench.generator import Generator, Traffic
from inferd.bench.result import Load

REQUESTS = (b"first", b"second", b"third")
ONE = Load(connections=1, streams=1)


def run(
    server: ScriptedServer,
    load: Load = ONE,
    *,
    limit: int,
    requests: tuple[bytes, ...] = REQUESTS,
    timeout_ns: int = 0,
    answers: tuple[tuple[bytes, ...], ...] | None = None,
    threads: int = 1,
    grpc: bool = True,
) -> Slice:
    """Offer it until `limit` calls have ended; everything that happened, in one slice."""
    traffic = Traffic(server.address, requests, timeout_ns=timeout_ns, answers=answers, grpc=grpc)
    with Generator(traffic, load, limit=limit, threads=threads, slice_ns=10_000_000) as generator:
        return merged(generator.slices())


def merged(slices: Iterator[Slice]) -> Slice:
    total = next(slices)
    for one in slices:
        total.merge(one)
    return total


def echo(peer: Peer, stream: int, body: bytes) -> None:
    peer.reply(stream, body[5:])


def test_every_request_goes_out_in_turn_and_its_answer_is_counted() -> None:
    with serving(echo) as server:
        seen = run(server, limit=7)
    assert server.bodies == [b"\0\0\0\0" + bytes([len(REQUESTS[i % 3])]) + REQUESTS[i % 3] for i in range(7)]
    assert (seen.sent, seen.ok, seen.latency.count, seen.failures, seen.in_flight) == (7, 7, 7, {}, 0)
    assert (seen.connects, seen.lost) == (1, 0)
    assert seen.sent_bytes > sum(map(len, server.bodies)) > 0
    assert seen.received_bytes > 0


def test_connections_and_limit_are_dealt_out_to_the_threads() -> None:
    with serving(echo) as server:
        seen = run(server, Load(connections=5, streams=3), limit=101, threads=2)
    assert (seen.ok, seen.connects, len(server.bodies), server.connections) == (101, 5, 101, 6)  # one to look


def test_a_closed_loop_keeps_all_streams_of_a_connection_busy() -> None:
    waiting: list[tuple[Peer, int]] = []

    def hold_until_four(peer: Peer, stream: int, body: bytes) -> None:
        waiting.append((peer, stream))
        if len(waiting) == 4:
            for _, held in waiting:
                peer.reply(held)
            waiting.clear()

    with serving(hold_until_four) as server:
        assert run(server, Load(connections=1, streams=4), limit=40).ok == 40


def test_headers_are_those_of_a_grpc_client() -> None:
    with serving(echo) as server:
        traffic = Traffic(server.address, REQUESTS, metadata=(("x-team", "search"),), timeout_ns=1_500_000_000)
        with Generator(traffic, ONE, limit=1) as generator:
            merged(generator.slices())
    (headers,) = server.headers
    assert headers.pop("user-agent").startswith("inferd-bench/")
    assert headers == {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/inference.GRPCInferenceService/ModelInfer",
        ":authority": server.address,
        "te": "trailers",
        "grpc-timeout": "1500m",
        "content-type": "application/grpc",
        "x-team": "search",
    }


def test_a_request_larger_than_every_window_arrives_whole() -> None:
    message = bytes(range(256)) * 2048
    with serving(lambda peer, stream, body: peer.reply(stream, b"x")) as server:
        seen = run(server, Load(connections=1, streams=3), limit=6, requests=(message,))
    assert seen.ok == 6
    assert {body[5:] for body in server.bodies} == {message}


def test_more_streams_than_the_server_allows_wait_their_turn() -> None:
    settings = {h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 2}
    with serving(echo, settings) as server:
        seen = run(server, Load(connections=1, streams=50), limit=300)
    assert (seen.ok, seen.failures) == (300, {})


# --- how a call can fail ------------------------------------------------------------------------------


def reset(code: h2.errors.ErrorCodes) -> Callable[[Peer, int, bytes], None]:
    return lambda peer, stream, body: peer.h2.reset_stream(stream, code)


def cut_short(peer: Peer, stream: int, body: bytes) -> None:
    peer.h2.send_headers(stream, [(":status", "200")])
    peer.h2.send_data(stream, b"\0\0\0\0\x09four")
    peer.h2.send_headers(stream, [("grpc-status", "0")], end_stream=True)


FAILURES = {
    "a trailers-only status": (lambda p, s, b: p.refuse(s, 8, "too%20many"), 8, "too many"),
    "a status after the message": (lambda p, s, b: p.reply(s, b"x", (("grpc-status", "13"),)), 13, ""),
    "a code beyond the table": (lambda p, s, b: p.refuse(s, 99, "what"), 2, "what"),
    "a code that is no number": (lambda p, s, b: p.reply(s, b"x", (("grpc-status", "none"),)), 2, ""),
    "no status at all": (lambda p, s, b: p.reply(s, b"x", ()), 2, "the answer has no grpc-status"),
    "OK without a whole message": (cut_short, 13, "the answer is not one whole message"),
    "HTTP 401": (lambda p, s, b: p.status(s, 401), 16, "HTTP status 401"),
    "HTTP 404": (lambda p, s, b: p.status(s, 404), 12, "HTTP status 404"),
    "HTTP 503": (lambda p, s, b: p.status(s, 503), 14, "HTTP status 503"),
    "HTTP 500": (lambda p, s, b: p.status(s, 500), 2, "HTTP status 500"),
    "CANCEL": (reset(h2.errors.ErrorCodes.CANCEL), 1, "the stream was reset with HTTP/2 error code 8"),
    "ENHANCE_YOUR_CALM": (
        reset(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM), 8, "the stream was reset with HTTP/2 error code 11",
    ),
    "INTERNAL_ERROR": (
        reset(h2.errors.ErrorCodes.INTERNAL_ERROR), 13, "the stream was reset with HTTP/2 error code 2",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "code", "text"), FAILURES.values(), ids=FAILURES.keys())
def test_a_failure_is_counted_by_its_grpc_code(answer: Callable[..., None], code: int, text: str) -> None:
    with serving(answer) as server:
        seen = run(server, Load(connections=2, streams=2), limit=9)
    assert (seen.ok, seen.failures, seen.messages) == (0, {code: 9}, {code: text})
    assert seen.latency.count == 0


def test_any_http_200_is_an_answer_where_no_grpc_is_spoken() -> None:
    with serving(lambda peer, stream, body: peer.status(stream, 200)) as server:
        assert run(server, limit=3, grpc=False).ok == 3


def test_a_refused_call_goes_out_once_more_and_only_once() -> None:
    with serving(reset(h2.errors.ErrorCodes.REFUSED_STREAM)) as server:
        seen = run(server, limit=5)
    assert (seen.failures, len(server.bodies)) == ({14: 5}, 10)


def test_calls_that_a_goaway_leaves_out_go_to_a_new_connection_and_none_fails() -> None:
    def leave_after_ten(peer: Peer, stream: int, body: bytes) -> None:
        peer.reply(stream)
        if stream == 19:
            peer.h2.close_connection(last_stream_id=stream)
            peer.hang_up()

    with serving(leave_after_ten) as server:
        seen = run(server, Load(connections=1, streams=4), limit=100)
    assert (seen.ok, seen.failures) == (100, {})
    assert server.connections > 5


def test_calls_under_way_end_on_a_connection_that_was_told_to_go_away() -> None:
    release = threading.Event()

    def leave_and_answer_later(peer: Peer, stream: int, body: bytes) -> None:
        if peer.number == 2 and not release.is_set():  # the first one only looked whether somebody listens
            if stream == 3:
                peer.h2.close_connection(last_stream_id=3)
                peer.flush()
                assert release.wait(5)
                # h2 itself sends nothing more after its GOAWAY: headers with :status 200 and grpc-status 0, by hand.
                for held in (1, 3):
                    block = peer.h2.encoder.encode([(":status", "200")])
                    peer.raw(len(block).to_bytes(3, "big") + b"\1\4" + held.to_bytes(4, "big") + block)
                    peer.raw(b"\0\0\5\0\0" + held.to_bytes(4, "big") + b"\0\0\0\0\0")
                    block = peer.h2.encoder.encode([("grpc-status", "0")])
                    peer.raw(len(block).to_bytes(3, "big") + b"\1\5" + held.to_bytes(4, "big") + block)
        else:
            peer.reply(stream)
            if len(server.bodies) > 20:
                release.set()

    with serving(leave_and_answer_later) as server:
        seen = run(server, Load(connections=1, streams=2), limit=60)
    assert (seen.ok, seen.failures) == (60, {})


def test_a_lost_connection_fails_what_was_under_way_and_the_load_goes_on() -> None:
    def hang_up_at_times(peer: Peer, stream: int, body: bytes) -> None:
        peer.hang_up() if stream == 9 else peer.reply(stream)

    with serving(hang_up_at_times) as server:
        seen = run(server, limit=25)
    assert (seen.ok, seen.failures) == (20, {14: 5})
    assert seen.messages == {14: "the connection was lost"}
    assert seen.lost == 5


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 100, b"\0\0\1\7\0\0\0\0\0\0"])
def test_garbage_ends_the_connection_and_nothing_else(garbage: bytes) -> None:
    with serving(lambda peer, stream, body: peer.raw(garbage)) as server:
        seen = run(server, limit=4)
    assert seen.failures == {14: 4}


def test_a_call_without_an_answer_ends_at_its_timeout_and_is_cancelled_at_the_server() -> None:
    with serving(lambda peer, stream, body: None) as server:
        seen = run(server, Load(connections=2, streams=3), limit=12, timeout_ns=30_000_000)
        assert seen.failures == {4: 12}
        assert seen.messages == {4: "no answer within the timeout"}
        # The last of them were cancelled as the load ended, perhaps with the connection.
        assert set(server.resets) == {int(h2.errors.ErrorCodes.CANCEL)}


def test_calls_expire_also_while_the_server_takes_no_bytes_and_no_streams() -> None:
    settings = {
        h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 3,
        h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 1,
    }
    with serving(lambda peer, stream, body: None, settings) as server:
        seen = run(server, Load(connections=2, streams=5), limit=30, timeout_ns=20_000_000)
    assert seen.failures == {4: 30}


# --- open loop ----------------------------------------------------------------------------------------


def test_a_stall_of_the_server_is_charged_to_every_request_that_was_due_meanwhile() -> None:
    def stall_once(peer: Peer, stream: int, body: bytes) -> None:
        if len(server.bodies) == 20:
            time.sleep(0.4)
        peer.reply(stream)

    with serving(stall_once) as server:
        # One at a time: a loop that waits for its answers would have seen one slow request.
        seen = run(server, Load(connections=1, streams=1, rate=200.0), limit=200)
    slow = sum(count for bound_ns, count in seen.latency.buckets() if bound_ns > 100_000_000)
    # 0.4 s long 200 requests a second were due; those of the first 0.3 s waited longer than 0.1 s.
    assert slow >= 55


def test_what_is_due_and_unsent_and_unanswered_shows_at_the_end() -> None:
    with serving(lambda peer, stream, body: None) as server:
        traffic = Traffic(server.address, REQUESTS)
        with Generator(traffic, Load(connections=1, streams=2, rate=1000.0), slice_ns=200_000_000) as generator:
            seen = next(generator.slices())
    assert (seen.ok, seen.in_flight) == (0, 2)
    assert seen.overdue >= 150
    assert seen.oldest_ns > 100_000_000


def test_constant_arrivals_are_all_the_interval_apart() -> None:
    assert native.due_times_ns(5, 2_000.0) == [0.0, 2_000.0, 4_000.0, 6_000.0, 8_000.0]


def test_poisson_arrivals_are_apart_as_exponentially_distributed_times_are() -> None:
    due_ns = native.due_times_ns(100_000, 1000.0, poisson=True, seed=1)
    gaps_ns = [after - before for before, after in pairwise(due_ns)]
    # Mean and spread are the interval; of such gaps 63.2 % are shorter than their mean, and no two of them are related.
    assert statistics.fmean(gaps_ns) == pytest.approx(1000, rel=0.02)
    assert statistics.pstdev(gaps_ns) == pytest.approx(1000, rel=0.02)
    assert sum(gap < 1000 for gap in gaps_ns) / len(gaps_ns) == pytest.approx(0.632, abs=0.01)
    assert statistics.correlation(gaps_ns[1:], gaps_ns[:-1]) == pytest.approx(0, abs=0.02)


def test_poisson_arrivals_repeat_with_their_seed_only() -> None:
    first, again, other = (native.due_times_ns(50, 1000.0, True, seed) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("arrivals", ["constant", "poisson"])
def test_no_request_leaves_before_it_is_due(arrivals: str) -> None:
    with serving(echo) as server:
        load = Load(connections=4, streams=100, rate=500.0, arrivals=arrivals)
        assert run(server, load, limit=500).ok == 500
    due_ns = native.due_times_ns(500, 1e9 / 500, arrivals == "poisson", 0)
    assert server.arrivals_s[-1] - server.arrivals_s[0] >= 0.9 * due_ns[-1] * 1e-9


# --- answers ------------------------------------------------------------------------------------------


def test_answers_are_compared_with_those_of_their_own_request() -> None:
    with serving(echo) as server:
        seen = run(server, limit=9, answers=((b"first",), (b"other", b"second"), (b"wrong",)))
    assert (seen.ok, seen.right) == (9, 6)
    assert seen.odd == [(2, b"third")] * 3


def test_an_odd_answer_that_was_accepted_is_right_from_then_on() -> None:
    with serving(echo) as server:
        traffic = Traffic(server.address, (b"only",), answers=((),))
        with Generator(traffic, ONE, limit=200, slice_ns=1_000_000) as generator:
            odd = right = 0
            for one in generator.slices():
                for number, answer in one.odd[:1]:
                    generator.accept(number, answer)
                odd, right = odd + len(one.odd) + one.unjudged, right + one.right
    assert odd + right == 200
    assert odd < right


def test_odd_answers_beyond_what_anybody_could_judge_are_only_counted() -> None:
    with serving(echo) as server:
        traffic = Traffic(server.address, REQUESTS, answers=((), (), ()))
        with Generator(traffic, ONE, limit=100, slice_ns=5_000_000_000) as generator:
            seen = merged(generator.slices())
    assert (len(seen.odd), seen.unjudged) == (64, 36)


def test_merging_slices_moves_odd_answers_and_keeps_the_first_text() -> None:
    with serving(lambda p, s, b: p.refuse(s, 3, "one") if b.endswith(b"first") else p.reply(s, b"x")) as server:
        one = run(server, limit=3, answers=((), (), ()))
        other = run(server, limit=3, answers=((), (), ()))
    other.merge(one)
    assert (one.odd, len(other.odd)) == ([], 4)
    assert (other.failures, other.messages) == ({3: 2}, {3: "one"})


# --- what makes no sense ------------------------------------------------------------------------------


@contextmanager
def refused(text: str) -> Iterator[None]:
    with pytest.raises(ValueError, match=text):
        yield


def test_a_load_that_makes_no_sense_is_refused() -> None:
    with refused("at least one connection"):
        native.Generator(b"", (), (b"x",), connections=0, streams=1)
    with refused("at least one connection"):
        native.Generator(b"", (), (), connections=1, streams=1)
    with refused("cannot be negative"):
        native.Generator(b"", (), (b"x",), connections=1, streams=1, interval_ns=-1.0)
    with refused("2 lists of answers for 1 requests"):
        native.Generator(b"", (), (b"x",), connections=1, streams=1, answers=((), ()))
    with refused("only answers of gRPC"):
        native.Generator(b"", (), (b"x",), connections=1, streams=1, answers=((),), grpc=False)


def test_accepting_an_answer_to_no_request_is_refused() -> None:
    with pytest.raises(IndexError):
        native.Generator(b"", (), (b"x",), connections=1, streams=1, answers=((),)).accept(1, b"x")


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:", ":1", "unix:/no/such/socket", "127.0.0.1:1"])
def test_an_address_where_nobody_listens_is_an_error_before_anything_runs(address: str) -> None:
    with pytest.raises(OSError), Generator(Traffic(address, REQUESTS), ONE):  # noqa: PT011
        pytest.fail("it connected")
