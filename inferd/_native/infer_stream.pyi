from collections.abc import Callable
from typing import Self, final

from inferd._native.infer import InferMethod, Waiter
from inferd._native.stream import Method, Stream

@final
class Place(Waiter): ...

@final
class Line: ...

@final
class InferStreamMethod(Method):
    def __new__(cls, infer: InferMethod, encoding: Callable[[Stream], bytes | None] | None) -> Self: ...
    def leave(self) -> None: ...
