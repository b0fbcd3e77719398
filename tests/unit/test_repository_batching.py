"""dynamic_batching in config.pbtxt: priorities, queue policies and order, and what contradicts itself."""

from __future__ import annotations

import pytest

from inferd.errors import RepositoryError
from inferd.repository import BatchingDecl, QueuePolicy, declare, parse

DAY_US = 24 * 3600 * 1_000_000


def batching(text: str) -> BatchingDecl:
    return declare(parse(f"dynamic_batching {{ {text} }}"), "m").batching


def fault(text: str) -> str:
    with pytest.raises(RepositoryError) as caught:
        batching(text)
    return str(caught.value)


def test_priorities_and_policies_are_read() -> None:
    assert batching("""
        priority_levels: 3
        default_priority_level: 2
        default_queue_policy { default_timeout_microseconds: 1500 allow_timeout_override: true }
        priority_queue_policy { key: 3 value { timeout_action: DELAY default_timeout_microseconds: 7 } }
        priority_queue_policy { key: 1 value { max_queue_size: 20 } }
    """) == BatchingDecl(
        priority_levels=3,
        default_priority_level=2,
        default_policy=QueuePolicy(default_timeout_ns=1_500_000, allow_timeout_override=True),
        priority_policies={
            1: QueuePolicy(max_queue_size=20),
            3: QueuePolicy(timeout_action="delay", default_timeout_ns=7_000),
        },
        declared=True,
    )


def test_a_policy_that_says_nothing_rejects_at_no_time_and_at_no_size() -> None:
    assert batching("default_queue_policy { }").default_policy == QueuePolicy("reject", 0, False, 0)


def test_order_can_be_asked_for_with_one_level_and_timeouts_that_reject() -> None:
    decl = batching("""
        preserve_ordering: true priority_levels: 1 default_priority_level: 1
        default_queue_policy { default_timeout_microseconds: 9 }
        priority_queue_policy { key: 1 value { timeout_action: DELAY } }
    """)
    assert decl.preserve_ordering


def test_a_timeout_of_years_is_read_in_nanoseconds() -> None:
    text = f"default_queue_policy {{ default_timeout_microseconds: {3650 * DAY_US} }}"
    assert batching(text).default_policy.default_timeout_ns == 3650 * DAY_US * 1000


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("priority_levels: 2", "default_priority_level must be from 1 to priority_levels (2), not 0"),
        ("priority_levels: 2 default_priority_level: 3", "from 1 to priority_levels (2), not 3"),
        ("default_priority_level: 1", "default_priority_level needs priority_levels"),
        ("priority_queue_policy { key: 1 value { } }", "priority_queue_policy needs priority_levels"),
        (
            "priority_levels: 2 default_priority_level: 1 priority_queue_policy { key: 3 value { } }",
            "priority_queue_policy must be for levels from 1 to priority_levels (2), not 3",
        ),
        (
            "priority_levels: 2 default_priority_level: 1 priority_queue_policy { key: 0 value { } }",
            "from 1 to priority_levels (2), not 0",
        ),
        ("priority_levels: 257 default_priority_level: 1", "priority_levels must be at most 256"),
        (
            "preserve_ordering: true priority_levels: 2 default_priority_level: 1",
            "preserve_ordering allows one priority level, and priority_levels is 2",
        ),
        (
            "preserve_ordering: true default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 1 }",
            "preserve_ordering contradicts timeout_action DELAY",
        ),
        (
            "preserve_ordering: true default_queue_policy { timeout_action: DELAY allow_timeout_override: true }",
            "preserve_ordering contradicts timeout_action DELAY",
        ),
        (
            "preserve_ordering: true priority_levels: 1 default_priority_level: 1 "
            "priority_queue_policy { key: 1 value { timeout_action: DELAY default_timeout_microseconds: 1 } }",
            "preserve_ordering contradicts timeout_action DELAY",
        ),
        ("default_queue_policy { timeout_action: 5 }", "default_queue_policy: timeout_action 5 is unknown"),
        (
            "priority_levels: 1 default_priority_level: 1 "
            f"priority_queue_policy {{ key: 1 value {{ default_timeout_microseconds: {3651 * DAY_US} }} }}",
            "priority_queue_policy of level 1: default_timeout_microseconds is more than ten years",
        ),
    ],
)
def test_a_section_that_contradicts_itself_is_refused_with_its_reason(text: str, part: str) -> None:
    reason = fault(text)
    assert reason.startswith("config.pbtxt: ")
    assert part in reason
