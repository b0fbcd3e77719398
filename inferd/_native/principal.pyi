from collections.abc import Callable
from typing import Self, final

from inferd._native.admission import Caller
from inferd.errors import InferdError

@final
class Permission:
    def __new__(
        cls,
        refusal: InferdError | None = None,
        judge: Callable[[str], bool] | None = None,
        denied: Callable[[str], object] | None = None,
    ) -> Self: ...
    @property
    def refusal(self) -> InferdError | None: ...
    @property
    def is_for_all(self) -> bool: ...
    def allows(self, model: str) -> bool: ...
    def deny(self, model: str) -> int: ...

@final
class Principal:
    def __new__(
        cls,
        names: tuple[str, ...],
        mark: object,
        authorization: bytes | None,
        api_key: bytes | None,
        until_ns: int = 0,
        weight: int = 1,
    ) -> Self: ...
    @property
    def name(self) -> str: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def mark(self) -> object: ...
    @property
    def until_ns(self) -> int: ...
    @property
    def weight(self) -> int: ...
    caller: Caller | None
    @property
    def permissions(self) -> dict[bytes, Permission]: ...
