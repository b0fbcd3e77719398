from typing_extensions import disjoint_base

from inferd._native.outlet import Outlet

@disjoint_base
class Inlet(Outlet):
    @property
    def received_ns(self) -> int: ...
    @property
    def holds_back(self) -> bool: ...
