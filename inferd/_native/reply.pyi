from collections.abc import Sequence
from typing import final

from inferd._native.queue import Batch

@final
class OutputView:
    def __init__(
        self,
        datatype: int,
        shape: Sequence[int],
        *,
        address: int = 0,
        strings: list[str] | None = None,
        owner: object = None,
    ) -> None: ...

def answer(batch: Batch, views: list[OutputView]) -> None: ...
