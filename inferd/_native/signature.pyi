from collections.abc import Collection, Mapping, Sequence
from typing import Self, final

from inferd._native.classes import Labels

@final
class Signature:
    def __new__(
        cls,
        model: str,
        version: str,
        inputs: Sequence[tuple[str, int, Sequence[int]]],
        outputs: Sequence[tuple[str, int, Sequence[int]]],
        *,
        batched: bool,
        max_rows: int,
        lenient: bool = False,
        broadcasts: bool = False,
        labels: Mapping[str, Labels] | None = None,
        model_inputs: Sequence[Sequence[int] | None] = (),
        model_outputs: Sequence[Sequence[int] | None] = (),
        optional: Collection[str] = (),
    ) -> Self: ...
    @property
    def model(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def batched(self) -> bool: ...
    @property
    def lenient(self) -> bool: ...
    @property
    def broadcasts(self) -> bool: ...
    @property
    def max_rows(self) -> int: ...
    @property
    def uniform(self) -> bool: ...
