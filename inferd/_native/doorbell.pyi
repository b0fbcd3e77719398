from collections.abc import Callable
from typing import Self, final

from typing_extensions import disjoint_base

@disjoint_base
class Bell:
    def ring(self) -> None: ...

@final
class LoopBell(Bell):
    def __new__(cls, tell: Callable[[], object]) -> Self: ...
    def heard(self) -> None: ...

@final
class Doorbell(Bell):
    def __new__(cls) -> Self: ...
    def wait(self, until_ns: int = -1) -> bool: ...
