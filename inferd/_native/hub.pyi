from collections.abc import Callable
from typing import Any, Self, final

from inferd._native.guard import Guard
from inferd._native.h2 import Connection
from inferd._native.stream import Method

@final
class Hub:
    heeds_traces: bool
    is_leaving: bool
    spare_bytes: int
    @property
    def unread(self) -> int: ...
    guard: Guard | None
    def __new__(
        cls,
        methods: dict[bytes, Method],
        find: Callable[[bytes], Method | None],
        call_soon: Callable[..., Any],
        call_later: Callable[..., Any],
        on_deadline: Callable[[int], object],
        on_left: Callable[[], object],
        *,
        max_message_bytes: int,
        max_metadata_bytes: int,
        max_streams: int,
        window_bytes: int,
        max_unpaid_frames: int,
    ) -> Self: ...
    @property
    def methods(self) -> dict[bytes, Method]: ...
    @property
    def connections(self) -> set[Connection]: ...
    @property
    def max_message_bytes(self) -> int: ...
    @property
    def max_metadata_bytes(self) -> int: ...
    @property
    def max_streams(self) -> int: ...
    @property
    def window_bytes(self) -> int: ...
    @property
    def max_unpaid_frames(self) -> int: ...
    def flush_now(self) -> None: ...
    def expire(self, now_ns: int) -> None: ...
