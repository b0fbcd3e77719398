from collections.abc import Callable
from typing import Self, final

from typing_extensions import disjoint_base

from inferd._native.access import AccessLog
from inferd._native.admission import Admission
from inferd._native.doorbell import Bell
from inferd._native.hub import Hub
from inferd._native.queue import BatchQueue
from inferd._native.region import Regions
from inferd._native.stats import ModelStats
from inferd._native.stream import Method, Stream
from inferd._native.trace import Sampling
from inferd._native.wire import Request
from inferd.errors import InferdError

@final
class Endpoint:
    def __new__(
        cls,
        queue: BatchQueue | None,
        bell: Bell,
        stats: ModelStats,
        refusal: InferdError | None = None,
        regions: Regions | None = None,
        *,
        names: tuple[str, str] = ("", ""),
        sampling: Sampling | None = None,
        access: AccessLog | None = None,
        gone: Callable[[], object] | None = None,
    ) -> Self: ...

@disjoint_base
class Waiter: ...

@final
class InferMethod(Method):
    def __new__(
        cls,
        find: Callable[[str, str], Endpoint],
        unknown: ModelStats,
        trailers: Callable[[InferdError], list[tuple[bytes, bytes]]],
        unpacked: Callable[[Stream, bytes], bytes],
        packed: Callable[[Stream, bytes], tuple[bytes, bytes] | None] | None,
        timeout_ns: int,
        admission: Admission | None = None,
        sampling: Sampling | None = None,
        access: AccessLog | None = None,
    ) -> Self: ...
    def forget(self) -> None: ...

def settle(
    requests: list[Request],
    stats: ModelStats,
    trailers: Callable[[InferdError], list[tuple[bytes, bytes]]],
    hub: Hub | None,
) -> None: ...
