"""The health board: which names it holds, who is told of a change, and what liveness is made of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.errors import Internal
from inferd.health import (
    INFERENCE_SERVICE,
    LIVENESS,
    OVERALL,
    READINESS,
    READY_NAMES,
    RESERVED_NAMES,
    HealthBoard,
    Status,
)

SERVING, NOT_SERVING = Status.SERVING, Status.NOT_SERVING


def run(main: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await main

    asyncio.run(bounded())


async def next_of(statuses: AsyncGenerator[Status | None, None]) -> Status | None:
    return await anext(statuses)


def test_a_new_board_is_alive_and_not_ready() -> None:
    board = HealthBoard()
    assert {name: board.status(name) for name in board.names()} == {
        OVERALL: NOT_SERVING,
        READINESS: NOT_SERVING,
        LIVENESS: SERVING,
        INFERENCE_SERVICE: NOT_SERVING,
    }


def test_a_name_nobody_set_has_no_status() -> None:
    assert HealthBoard().status("resnet") is None


def test_readiness_changes_all_names_that_mean_it_together() -> None:
    board = HealthBoard()
    board.set_ready(True)
    assert [board.status(name) for name in READY_NAMES] == [SERVING] * 3
    board.set_ready(False)
    assert [board.status(name) for name in READY_NAMES] == [NOT_SERVING] * 3


def test_draining_does_not_touch_liveness() -> None:
    board = HealthBoard()
    board.set_ready(True)
    board.set_ready(False)
    assert board.status(LIVENESS) is SERVING


def test_readiness_does_not_touch_the_models() -> None:
    board = HealthBoard()
    board.set("resnet/1", SERVING)
    board.set_ready(False)
    assert board.status("resnet/1") is SERVING


def test_models_are_named_after_the_servers_own_names() -> None:
    board = HealthBoard()
    board.set("resnet", SERVING)
    board.set("resnet/1", SERVING)
    assert board.names() == (OVERALL, READINESS, LIVENESS, INFERENCE_SERVICE, "resnet", "resnet/1")


def test_a_removed_model_is_unknown_again() -> None:
    board = HealthBoard()
    board.set("resnet", SERVING)
    board.remove("resnet")
    assert board.status("resnet") is None
    assert "resnet" not in board.names()


def test_removing_an_unknown_name_changes_nothing() -> None:
    board = HealthBoard()
    board.remove("resnet")
    assert len(board.names()) == 4


@pytest.mark.parametrize("name", sorted(RESERVED_NAMES))
def test_a_model_cannot_take_one_of_the_servers_own_names(name: str) -> None:
    board = HealthBoard()
    with pytest.raises(Internal):
        board.set(name, SERVING)
    with pytest.raises(Internal):
        board.remove(name)


# --- liveness -------------------------------------------------------------------------------------


def test_one_dead_probe_is_a_dead_server_with_its_reason() -> None:
    board = HealthBoard()
    board.add_liveness_probe(lambda: None)
    board.add_liveness_probe(lambda: "the engine thread of resnet ended")
    assert board.status(LIVENESS) is NOT_SERVING
    assert board.death_reason() == "the engine thread of resnet ended"


def test_a_probe_that_raises_has_not_shown_life() -> None:
    def broken() -> str | None:
        raise ValueError("no such thread")

    board = HealthBoard()
    board.add_liveness_probe(broken)
    assert board.death_reason() == "a liveness probe failed: ValueError: no such thread"


def test_an_empty_reason_is_still_a_reason() -> None:
    board = HealthBoard()
    board.add_liveness_probe(lambda: "")
    assert board.status(LIVENESS) is NOT_SERVING


def test_liveness_is_asked_anew_each_time() -> None:
    answers = iter(["stuck", None])
    board = HealthBoard()
    board.add_liveness_probe(lambda: next(answers))
    assert [board.status(LIVENESS), board.status(LIVENESS)] == [NOT_SERVING, SERVING]


def test_a_watcher_of_liveness_is_told_by_the_polling() -> None:
    async def main() -> None:
        reason: list[str | None] = [None]
        board = HealthBoard()
        board.add_liveness_probe(lambda: reason[0])
        polling = asyncio.create_task(board.run(interval_s=0.001))
        async with aclosing(board.watch(LIVENESS)) as statuses:
            assert await anext(statuses) is SERVING
            reason[0] = "stuck"
            assert await anext(statuses) is NOT_SERVING
            reason[0] = None
            assert await anext(statuses) is SERVING
        board.close()
        await polling

    run(main())


def test_a_new_watcher_of_liveness_does_not_wait_for_the_next_poll() -> None:
    async def main() -> None:
        board = HealthBoard()
        board.add_liveness_probe(lambda: "stuck")
        async with aclosing(board.watch(LIVENESS)) as statuses:
            assert await anext(statuses) is NOT_SERVING

    run(main())


def test_what_one_watch_learns_of_liveness_reaches_the_others() -> None:
    async def main() -> None:
        reason: list[str | None] = [None]
        board = HealthBoard()
        board.add_liveness_probe(lambda: reason[0])
        async with aclosing(board.watch(LIVENESS)) as early, aclosing(board.watch(LIVENESS)) as late:
            assert await anext(early) is SERVING
            reason[0] = "stuck"
            assert await anext(late) is NOT_SERVING
            assert await anext(early) is NOT_SERVING

    run(main())


# --- watching -------------------------------------------------------------------------------------


def test_a_watch_begins_with_the_status_as_it_is() -> None:
    async def main() -> None:
        board = HealthBoard()
        board.set("resnet", SERVING)
        async with aclosing(board.watch("resnet")) as statuses:
            assert await anext(statuses) is SERVING

    run(main())


def test_a_watch_of_an_unknown_name_waits_for_it_to_appear() -> None:
    async def main() -> None:
        board = HealthBoard()
        async with aclosing(board.watch("resnet")) as statuses:
            assert await anext(statuses) is None
            appeared = asyncio.create_task(next_of(statuses))
            board.set("resnet", NOT_SERVING)
            assert await appeared is NOT_SERVING

    run(main())


def test_a_removed_name_is_told_as_unknown() -> None:
    async def main() -> None:
        board = HealthBoard()
        board.set("resnet", SERVING)
        async with aclosing(board.watch("resnet")) as statuses:
            assert await anext(statuses) is SERVING
            board.remove("resnet")
            assert await anext(statuses) is None

    run(main())


def test_a_status_set_again_is_not_told_again() -> None:
    async def main() -> None:
        board = HealthBoard()
        board.set("resnet", SERVING)
        async with aclosing(board.watch("resnet")) as statuses:
            assert await anext(statuses) is SERVING
            board.set("resnet", SERVING)
            board.set("resnet", NOT_SERVING)
            assert await anext(statuses) is NOT_SERVING

    run(main())


def test_other_names_do_not_wake_a_watcher() -> None:
    async def main() -> None:
        board = HealthBoard()
        async with aclosing(board.watch("resnet")) as statuses:
            assert await anext(statuses) is None
            waiting = asyncio.create_task(next_of(statuses))
            board.set("resnet/1", SERVING)
            board.set_ready(True)
            await asyncio.sleep(0)
            assert not waiting.done()
            board.set("resnet", SERVING)
            assert await waiting is SERVING

    run(main())


@given(st.lists(st.sampled_from([SERVING, NOT_SERVING, None]), min_size=1, max_size=20))
def test_a_slow_reader_is_told_the_last_status_whatever_it_missed(changes: list[Status | None]) -> None:
    async def main() -> None:
        board = HealthBoard()
        told: list[Status | None] = []
        async with aclosing(board.watch("resnet")) as statuses:
            told.append(await anext(statuses))
            for status in changes:
                if status is None:
                    board.remove("resnet")
                else:
                    board.set("resnet", status)
            board.close()
            told += [status async for status in statuses]
        assert told[-1] is changes[-1]
        assert len(told) <= 2

    run(main())


@given(st.lists(st.sampled_from([SERVING, NOT_SERVING]), max_size=20), st.randoms(use_true_random=False))
def test_a_reader_at_any_pace_ends_with_the_last_status(changes: list[Status], pace: Any) -> None:
    async def main() -> None:
        board = HealthBoard()
        told: list[Status | None] = []

        async def read() -> None:
            async with aclosing(board.watch("resnet")) as statuses:
                async for status in statuses:
                    told.append(status)
                    for _ in range(pace.randrange(3)):
                        await asyncio.sleep(0)

        reading = asyncio.create_task(read())
        for status in changes:
            for _ in range(pace.randrange(3)):
                await asyncio.sleep(0)
            board.set("resnet", status)
        board.close()
        await reading
        assert told[-1] is (changes[-1] if changes else None)

    run(main())


def test_closing_ends_a_watch_that_waits() -> None:
    async def main() -> None:
        board = HealthBoard()
        async with aclosing(board.watch(READINESS)) as statuses:
            assert await anext(statuses) is NOT_SERVING
            waiting = asyncio.create_task(next_of(statuses))
            await asyncio.sleep(0)
            board.close()
            with pytest.raises(StopAsyncIteration):
                await waiting

    run(main())


def test_a_watch_of_a_closed_board_tells_the_status_and_ends() -> None:
    async def main() -> None:
        board = HealthBoard()
        board.close()
        assert [status async for status in board.watch(READINESS)] == [NOT_SERVING]

    run(main())


def test_nothing_is_kept_of_a_watch_that_was_left() -> None:
    async def main() -> None:
        board = HealthBoard()
        for number in range(50):
            async with aclosing(board.watch(f"guess {number}")) as statuses:
                await anext(statuses)
                assert board.watcher_count == 1
        assert board.watcher_count == 0

    run(main())


def test_nothing_is_kept_of_a_watch_whose_task_was_cancelled() -> None:
    async def main() -> None:
        board = HealthBoard()
        told = asyncio.Event()

        async def read() -> None:
            async with aclosing(board.watch("resnet")) as statuses:
                async for _ in statuses:
                    told.set()

        reading = asyncio.create_task(read())
        await told.wait()
        reading.cancel()
        await asyncio.wait((reading,))
        assert board.watcher_count == 0

    run(main())


def test_polling_ends_when_the_board_is_closed() -> None:
    async def main() -> None:
        board = HealthBoard()
        polling = asyncio.create_task(board.run(interval_s=3600))
        await asyncio.sleep(0)
        board.close()
        await polling

    run(main())
