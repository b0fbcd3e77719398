from typing_extensions import disjoint_base

from inferd._native.admission import Caller

@disjoint_base
class Outlet:
    caller: Caller | None
