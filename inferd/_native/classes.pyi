from collections.abc import Iterable
from typing import Self, final

@final
class Labels:
    def __new__(cls, lines: Iterable[bytes]) -> Self: ...
