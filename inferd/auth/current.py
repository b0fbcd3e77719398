"""What the call that is being answered may do, for handlers in Python. Each call has a task, and so its own."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from inferd._native.principal import Permission, Principal
from inferd.errors import Forbidden

CURRENT: Final[ContextVar[Permission | None]] = ContextVar("permission", default=None)
"""The permission of the call; None where nobody asks."""

WHO: Final[ContextVar[Principal | None]] = ContextVar("who", default=None)
"""Whoever makes the call; None where nobody asks."""


def require(model: str) -> None:
    """Raises Forbidden if the call may not be made for this model; no name stands for all of them."""
    permission = CURRENT.get()
    if permission is not None and not permission.allows(model):
        permission.deny(model)
        raise Forbidden()
