from collections.abc import Sequence
from typing import Self, final

from inferd._native.tally import Slice

def due_times_ns(count: int, interval_ns: float, poisson: bool = False, seed: int = 0) -> list[float]: ...

@final
class Generator:
    def __new__(
        cls,
        address: bytes,
        headers: Sequence[tuple[bytes, bytes]],
        requests: Sequence[bytes],
        *,
        connections: int,
        streams: int,
        interval_ns: float = 0.0,
        poisson: bool = False,
        seed: int = 0,
        first_due_ns: int = 0,
        limit: int = 0,
        timeout_ns: int = 0,
        answers: Sequence[Sequence[bytes]] | None = None,
        grpc: bool = True,
    ) -> Self: ...
    @property
    def finished(self) -> bool: ...
    def accept(self, request: int, answer: bytes) -> None: ...
    def run(self, until_ns: int) -> Slice: ...
    def close(self) -> None: ...
