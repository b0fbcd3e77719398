"""What is kept of ONNX Runtime's words about a run that failed: enough to find the operator, nothing of the request."""

from __future__ import annotations

import pytest

from inferd.errors import InputRefused, RunFailed
from inferd.session.failures import run_failure

FAILED = "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Non-zero status code returned while running"


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        (
            "Gather node. Name:'take_3' Status Message: indices element out of data bounds, idx=987654 must be within "
            "the inclusive range [-3,2]",
            "Gather node. Name:'take_3' Status Message: indices element out of data bounds, idx=# must be within "
            "the inclusive range [#,#]",
        ),
        (
            "Reshape node. Name:'' Status Message: providers/cpu/tensor/reshape_helper.h:91 was false. "
            "Input shape:{3}, requested shape:{987654}\n",
            "Reshape node. Name:'' Status Message: providers/cpu/tensor/reshape_helper.h:91 was false. "
            "Input shape:{#}, requested shape:{#}",
        ),
        ("Cast node. Name:'' Status Message: stod", "Cast node. Name:'' Status Message: stod"),
        (
            "X node. Name:'' Status Message: value 1.5e-7 in float32",
            "X node. Name:'' Status Message: value # in float32",
        ),
    ],
)
def test_a_value_that_an_operator_refused_is_not_told(told: str, kept: str) -> None:
    failure = run_failure(RuntimeError(f"{FAILED} {told}"))
    assert isinstance(failure, InputRefused)
    assert str(failure) == f"{FAILED} {kept}"


def test_how_much_memory_was_not_to_be_had_is_told() -> None:
    text = f"{FAILED} Conv node. Name:'c' Status Message: Failed to allocate memory for requested buffer of size 4096"
    failure = run_failure(RuntimeError(text))
    assert isinstance(failure, RunFailed)
    assert "4096" in str(failure)
