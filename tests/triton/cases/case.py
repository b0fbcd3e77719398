"""What a case is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..answers import Answer, Call, codes


@dataclass(frozen=True)
class Difference:
    """A difference that is meant: a row of the table in docs/triton.md.

    `triton` and `inferd` are what `seen` makes of the answers of each, so that the page says what a test saw.
    """

    what: str
    triton: str
    inferd: str
    why: str
    seen: Callable[[Sequence[Answer]], str] = codes


@dataclass(frozen=True)
class Case:
    """Calls that both servers are asked, and answer in the same way unless a difference says how not.

    They are made one after the other, or all `at_once`.
    """

    name: str
    calls: tuple[Call, ...]
    difference: Difference | None = None
    at_once: bool = False


def infer(request: Any) -> tuple[Call, ...]:
    """One inference."""
    return (Call("ModelInfer", request),)


def changed(request: Any, change: Callable[[Any], object]) -> Any:
    """The request after `change`."""
    change(request)
    return request


def parameter(holder: Any, name: str, kind: str, value: Any) -> None:
    """Set a parameter of a request or a tensor: kind is the field of the value, int64_param and so on."""
    if kind:
        setattr(holder.parameters[name], kind, value)
    else:
        holder.parameters[name].SetInParent()
