"""Any JSON at all is read as a request or refused with words for its sender."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.errors import InvalidRequest
from inferd.http.document import Asked, parse, render
from inferd.proto import inference_pb2 as pb

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


def one_of(*usual: Any) -> st.SearchStrategy[Any]:
    """Mostly what belongs there."""
    return st.sampled_from(usual) | st.sampled_from(usual) | ANYTHING


PARAMETERS = st.dictionaries(
    st.sampled_from(["binary_data_size", "binary_data", "binary_data_output", "shared_memory_region", "a"]),
    one_of(True, 4, "text", 0.5, -(2**63), 2**64, "\ud800"),
    max_size=2,
)
TENSOR = st.fixed_dictionaries(
    {"name": one_of("x", "\udfff"), "datatype": one_of("FP32", "BYTES", "BF16", "INT8"), "shape": one_of([1], [1, 2])},
    optional={"data": one_of([1], [0.5, "NaN"], ["a"], [[1], [2]]), "parameters": PARAMETERS | ANYTHING},
)
DOCUMENT = st.fixed_dictionaries(
    {"inputs": st.lists(TENSOR, max_size=3)},
    optional={"id": one_of("1"), "outputs": st.lists(TENSOR, max_size=2) | ANYTHING, "parameters": PARAMETERS},
)


@given(DOCUMENT | ANYTHING, st.binary(max_size=12))
def test_any_json_is_a_request_or_refused(document: Any, behind: bytes) -> None:
    head = json.dumps(document).encode()
    try:
        asked = parse("model", "", head + behind, len(head))
    except InvalidRequest:
        return
    message = pb.ModelInferRequest.FromString(asked.message)
    assert len(message.inputs) == len(message.raw_input_contents) == len(document["inputs"])


@given(st.binary(max_size=40))
def test_any_bytes_are_a_request_or_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse("model", "", body, len(body))


def test_outputs_go_where_each_is_wanted() -> None:
    answer = pb.ModelInferResponse(model_name="m", model_version="1", raw_output_contents=[b"\1", b"\2"])
    for name in ("a", "b"):
        answer.outputs.add(name=name, datatype="INT8", shape=[1])
    parts, json_bytes = render(answer.SerializeToString(), Asked(b"", {"a": False}, True))
    told = json.loads(parts[0])
    assert (len(parts[0]), parts[1:]) == (json_bytes, [b"\2"])
    assert told["outputs"] == [
        {"name": "a", "datatype": "INT8", "shape": [1], "data": [1]},
        {"name": "b", "datatype": "INT8", "shape": [1], "parameters": {"binary_data_size": 1}},
    ]
