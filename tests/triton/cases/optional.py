"""Inputs that config.pbtxt calls optional: what a request brings, and what it leaves to the model.

That another one is missing Triton leaves to its backend, so there is nothing to compare with.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from serve.calls import request, rows

from .case import Case, infer

OWN = np.array([[3]], "f4")


def defaults(*names: str, count: int = 1) -> Any:
    """A request with these of the inputs scale, shift and x."""
    values = {"x": rows(1, count), "scale": OWN.repeat(count, 0), "shift": -OWN.repeat(count, 0)}
    return request("defaults", **{name: values[name] for name in names})


CASES = (
    Case("all that may be", infer(defaults("scale", "shift", "x"))),
    Case("all in another order", infer(defaults("x", "shift", "scale"))),
    Case("none of them", infer(defaults("x"))),
    Case("the first", infer(defaults("scale", "x"))),
    Case("the second", infer(defaults("x", "shift"))),
    Case("several rows", infer(defaults("x", count=3))),
    Case("several rows and one of them", infer(defaults("scale", "x", count=3))),
    Case("different ones at once", (*infer(defaults("x")), *infer(defaults("x", "scale"))), at_once=True),
    Case("nothing", infer(defaults())),
)
