"""Bells: a ring is never lost and never counted twice, and a wait ends when it says."""

from __future__ import annotations

import threading
import time

import pytest

from inferd._native.doorbell import Doorbell, LoopBell

WAIT_S = 20


def rung_now(bell: Doorbell) -> bool:
    """Whether a wait that may take no time finds a ring."""
    return bell.wait(0)


def test_a_ring_that_nobody_waits_for_is_kept() -> None:
    bell = Doorbell()
    bell.ring()
    assert bell.wait()


def test_several_rings_are_one() -> None:
    bell = Doorbell()
    bell.ring()
    bell.ring()
    assert rung_now(bell)
    assert not rung_now(bell)


def test_a_new_bell_has_not_been_rung() -> None:
    assert not rung_now(Doorbell())


def test_a_wait_without_a_ring_ends_at_its_time() -> None:
    until_ns = time.monotonic_ns() + 2_000_000
    assert not Doorbell().wait(until_ns)
    assert time.monotonic_ns() >= until_ns


def test_a_time_that_has_passed_is_not_waited_for() -> None:
    assert not Doorbell().wait(1)


def test_a_ring_wakes_a_thread_that_waits_without_the_gil() -> None:
    bell, answers = Doorbell(), Doorbell()
    rung: list[bool] = []

    def serve() -> None:
        for _ in range(100):
            rung.append(bell.wait())
            answers.ring()

    thread = threading.Thread(target=serve)
    thread.start()
    for _ in range(100):
        bell.ring()
        assert answers.wait(time.monotonic_ns() + WAIT_S * 10**9)
    thread.join(WAIT_S)
    assert rung == [True] * 100


def test_a_ring_that_is_passed_on_wakes_every_waiter() -> None:
    bell = Doorbell()
    woken: list[bool] = []

    def serve() -> None:
        woken.append(bell.wait(time.monotonic_ns() + WAIT_S * 10**9))
        bell.ring()

    threads = [threading.Thread(target=serve) for _ in range(4)]
    for thread in threads:
        thread.start()
    bell.ring()
    for thread in threads:
        thread.join(WAIT_S)
    assert woken == [True] * 4
    assert rung_now(bell)


def test_a_bell_of_the_loop_tells_once_until_it_was_heard() -> None:
    told: list[None] = []
    bell = LoopBell(lambda: told.append(None))
    for _ in range(3):
        bell.ring()
    assert len(told) == 1
    bell.heard()
    assert len(told) == 1
    bell.ring()
    assert len(told) == 2


def test_a_ring_that_could_not_be_told_is_an_error_of_who_rang() -> None:
    def broken() -> None:
        raise RuntimeError("nobody listens")

    with pytest.raises(RuntimeError, match="nobody listens"):
        LoopBell(broken).ring()
