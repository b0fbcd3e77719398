"""What ONNX Runtime's failures mean; the binding gives no status code, only words."""

from __future__ import annotations

import re

from inferd.errors import InputRefused, RunFailed

# How ONNX Runtime words the one failure that is about our output buffers and not about the input, newer and older.
WRONG_OUTPUT_SHAPE = re.compile("computed output shape|OrtValue shape verification failed")
# An operator that fails on inputs of the right type and shape has met a value it cannot take, such as an
# index out of range; the binding gives no status code, only these words. Running out of memory is not that.
OPERATOR_FAILED = "Non-zero status code returned while running"
OUT_OF_MEMORY = re.compile(r"alloc|memory", re.IGNORECASE)
# What an operator says of a value it cannot take may tell the value. What follows a colon is a line of a file.
NUMBER = re.compile(r"(?<![\w:.])[-+]?\d[\d.]*(?:[eE][-+]?\d+)?(?!\w)")
STATUS = "Status Message:"


def one_line(failure: BaseException) -> str:
    """Its text, for a log."""
    return " ".join(str(failure).split())


def run_failure(failure: Exception) -> InputRefused | RunFailed:
    """The error to raise for what a run has raised."""
    reason = one_line(failure)
    if OPERATOR_FAILED in reason and not OUT_OF_MEMORY.search(reason):
        return InputRefused(_without_values(reason))
    return RunFailed(reason)


def _without_values(reason: str) -> str:
    """Which operator refused and why, but not which value: the log is no place for what is in tensors."""
    operator, status, told = reason.partition(STATUS)
    return operator + status + NUMBER.sub("#", told)
