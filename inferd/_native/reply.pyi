from collections.abc import Sequence
from typing import Self, final

from inferd._native.batch import Batch
from inferd._native.region import Region

@final
class OutputView:
    def __new__(
        cls,
        datatype: int,
        shape: Sequence[int],
        *,
        address: int = 0,
        strings: list[str] | None = None,
        owner: object = None,
    ) -> Self: ...

def answer(batch: Batch, views: list[OutputView]) -> list[tuple[Region, int, int, int]]: ...
def gpu_outputs(batch: Batch) -> dict[int, tuple[Region, int, int]]: ...
def streamed_failure(text: bytes, id: bytes) -> bytes: ...
