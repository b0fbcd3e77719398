from typing import Any, Self, final

from inferd._native.trace import Trace
from inferd._native.wire import Request

@final
class AccessLog:
    def __new__(cls, room: int) -> Self: ...
    @property
    def dropped(self) -> int: ...
    def note(
        self,
        names: tuple[Any, ...],
        request: Request | None,
        code: int,
        begun_ns: int,
        now_ns: int,
        trace: Trace | None = None,
    ) -> None: ...
    def take(self) -> list[tuple[tuple[Any, ...], int, int, int, int, int, int, bool, bytes, bytes, bytes]]: ...
