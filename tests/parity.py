"""What the codec makes of a request beside what protobuf's own parser and the oracle make of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from handmade import Spec, signature_of
from oracle import Refused, beyond_limits, in_sequence, integer, laid_out, lost_a_map_entry, parsed

from inferd._native.bind import bind
from inferd._native.region import Regions
from inferd._native.wire import Request, decode
from inferd.errors import InvalidRequest, NotOffered, UnknownRegion
from inferd.proto import inference_pb2 as pb

MAX_ROWS = 4


def decoded(body: bytes) -> Request | None:
    try:
        return decode(body)
    except InvalidRequest:
        return None


def assert_same(body: bytes) -> tuple[Request, pb.ModelInferRequest] | None:
    """Both read the same, or both refuse; what they read, if they do."""
    message, request = parsed(body), decoded(body)
    if message is None or beyond_limits(message):
        assert request is None
        return None
    assert request is not None
    assert request.model_name == message.model_name
    assert request.model_version == message.model_version
    assert request.id == message.id
    assert request.inputs() == [(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in message.inputs]
    assert request.outputs() == [output.name for output in message.outputs]
    assert request.raw_contents() == list(message.raw_input_contents)
    if not lost_a_map_entry(message, 4):
        assert request.timeout_us == integer(message, "timeout", "int64_param")
        assert request.priority == integer(message, "priority", "int64_param", "uint64_param")
        assert request.in_sequence == in_sequence(message)
    return request, message


def assert_bound_alike(
    request: Request,
    message: pb.ModelInferRequest,
    inputs: Mapping[str, Spec],
    *,
    batched: bool,
    optional: Collection[str] = (),
    regions: Regions | None = None,
    memory: Mapping[str, bytes] | None = None,
) -> str:
    """bind accepts what the oracle accepts and lays the bytes out as it does; why they refuse, empty if they accept.

    `regions` are registered, and `memory` is what they hold, by name.
    """
    signature = signature_of(inputs, batched=batched, max_rows=MAX_ROWS, optional=optional)
    try:
        expected = laid_out(message, inputs, batched=batched, max_rows=MAX_ROWS, optional=optional, memory=memory)
    except Refused as reason:
        try:
            bind(signature, request, regions)
        except (InvalidRequest, NotOffered, UnknownRegion):
            return str(reason)
        raise AssertionError(f"bound, although the oracle refuses it: {reason}") from None
    bind(signature, request, regions)
    assert [name for name, _, _ in request.inputs()] == [name for name in inputs if name in expected]
    for index, (name, (datatype, _)) in enumerate(inputs.items()):
        found = request.tensor_bytes(index)
        if name not in expected:
            assert found == b""
            continue
        if datatype in ("FP32", "FP64"):
            # Python's floats do not keep every bit of a NaN; the exact bytes are compared by the caller.
            kind = {"FP32": "<f4", "FP64": "<f8"}[datatype]
            assert np.array_equal(np.frombuffer(found, kind), np.frombuffer(expected[name], kind), equal_nan=True)
        else:
            assert found == expected[name]
    assert request.nbytes == sum(map(len, expected.values()))
    return ""
