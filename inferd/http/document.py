"""Inference as JSON, with or without tensors as bytes behind it, to and from the protocol's messages.

Facts: kserve/open-inference-protocol, specification/protocol/inference_rest.md; of the bytes behind the JSON,
triton-inference-server/server, docs/protocol/extension_binary_data.md. Numbers that JSON has no way to write are the
strings NaN, Infinity and -Infinity, as in protobuf's own mapping.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from inferd.errors import InvalidRequest
from inferd.http.elements import BYTES_OF, raw, text
from inferd.proto import inference_pb2 as pb

_REGION: Final = "shared_memory_region"
_INT64: Final = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as the message that gRPC would have brought, and which outputs are wanted as bytes."""

    message: bytes
    binary: Mapping[str, bool]
    others_binary: bool

    def wants_bytes(self, output: str) -> bool:
        """Whether this output goes behind the JSON instead of into it."""
        return self.binary.get(output, self.others_binary)


def parse(model: str, version: str, body: bytes, json_bytes: int) -> Asked:
    """Read the body of an inference request; the first `json_bytes` are JSON. Raises InvalidRequest."""
    try:
        return _parsed(model, version, body, json_bytes)
    except UnicodeEncodeError:
        # JSON can escape what UTF-8 cannot hold.
        raise InvalidRequest("a text of the request holds half a character") from None


def render(answer: bytes, asked: Asked) -> tuple[list[bytes], int]:
    """The body of the answer in parts, and how many bytes of it are JSON. InvalidRequest: no text."""
    message = pb.ModelInferResponse.FromString(answer)
    head: dict[str, Any] = {"model_name": message.model_name, "model_version": message.model_version}
    if message.id:
        head["id"] = message.id
    if message.parameters:
        head["parameters"] = _plain(message.parameters)
    outputs, blobs = [], []
    for output, content in zip(message.outputs, message.raw_output_contents, strict=True):
        made: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": list(output.shape)}
        parameters = _plain(output.parameters)
        data = None
        if _REGION not in parameters:
            if asked.wants_bytes(output.name):
                parameters["binary_data_size"] = len(content)
                blobs.append(content)
            else:
                data = text(content, output.datatype, f"output {output.name!r}")
        if parameters:
            made["parameters"] = parameters
        # The data is text already; the rest of the object is closed around it.
        opened = json.dumps(made, separators=(",", ":"))
        outputs.append(opened if data is None else f'{opened[:-1]},"data":[{data}]}}')
    opened = json.dumps(head, separators=(",", ":"))
    written = f'{opened[:-1]},"outputs":[{",".join(outputs)}]}}'.encode()
    return [written, *blobs], len(written)


# --- inside -----------------------------------------------------------------------------------------


def _parsed(model: str, version: str, body: bytes, json_bytes: int) -> Asked:
    document = _object(_loaded(body[:json_bytes]), "the request")
    blobs = memoryview(body)[json_bytes:]
    message = pb.ModelInferRequest(model_name=model, model_version=version, id=_text(document, "id", default=""))
    others_binary = bool(_parameters(message.parameters, document, {"binary_data_output": bool}, "the request"))
    inputs = _list(document, "inputs", "the request")
    if not inputs:
        raise InvalidRequest("the request has no inputs: give it a list of tensors as `inputs`")
    for one in inputs:
        blobs = _input(message, _object(one, "an input"), blobs)
    if blobs:
        raise InvalidRequest(f"{len(blobs)} bytes follow the last tensor of the request; see its binary_data_size")
    binary = {}
    for one in _list(document, "outputs", "the request"):
        wanted = _object(one, "an output")
        output = message.outputs.add(name=_text(wanted, "name"))
        chosen = _parameters(output.parameters, wanted, {"binary_data": bool}, f"output {output.name!r}")
        if chosen is not None:
            binary[output.name] = bool(chosen)
    return Asked(message.SerializeToString(), binary, others_binary)


def _input(message: Any, given: dict[str, Any], blobs: memoryview) -> memoryview:
    """Add one input to the message; gives what is left of the bytes behind the JSON."""
    name, datatype = _text(given, "name"), _text(given, "datatype")
    owner = f"input {name!r}"
    if datatype != "BYTES" and datatype not in BYTES_OF:
        raise InvalidRequest(f"{owner}: {datatype!r} is no datatype of the protocol")
    shape = _list(given, "shape", owner)
    if not all(type(dim) is int and 0 <= dim < 2**63 for dim in shape):
        raise InvalidRequest(f"{owner}: its shape is a list of whole numbers, none below 0")
    tensor = message.inputs.add(name=name, datatype=datatype, shape=shape)
    size = _parameters(tensor.parameters, given, {"binary_data_size": int}, owner)
    if _REGION in tensor.parameters:
        if "data" in given or size is not None:
            raise InvalidRequest(f"{owner} is in shared memory and brings data too")
        message.raw_input_contents.append(b"")
        return blobs
    if size is None:
        if "data" not in given:
            raise InvalidRequest(f"{owner} has no data: give it a list as `data`, or binary_data_size and bytes")
        message.raw_input_contents.append(raw(given["data"], datatype, owner))
        return blobs
    if "data" in given:
        raise InvalidRequest(f"{owner} has both data and binary_data_size")
    if not 0 <= size <= len(blobs):
        raise InvalidRequest(f"{owner}: binary_data_size is {size}, and {len(blobs)} bytes are left behind the JSON")
    message.raw_input_contents.append(bytes(blobs[:size]))
    return blobs[size:]


def _loaded(text: bytes) -> Any:
    try:
        return json.loads(text, parse_float=_number, parse_int=_whole)
    except UnicodeDecodeError:
        raise InvalidRequest("the body is not JSON: its text is not UTF-8") from None
    except json.JSONDecodeError as failure:
        raise InvalidRequest(f"the body is not JSON: {failure.msg}, at character {failure.pos}") from None
    except RecursionError:
        raise InvalidRequest("the JSON of the body is nested too deeply") from None


# Python functions although float and int do the same: between two of them another thread, the loop's, gets its turn.
def _number(digits: str) -> float:
    return float(digits)


def _whole(digits: str) -> int:
    if len(digits) > 20:
        raise InvalidRequest(f"a whole number of {len(digits)} digits fits no datatype")
    return int(digits)


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{what} is not a JSON object")
    return value


def _text(owner: dict[str, Any], key: str, default: str | None = None) -> str:
    value = owner.get(key, default)
    if not isinstance(value, str):
        raise InvalidRequest(f"`{key}` is missing where the protocol has one, or is no text")
    return value


def _list(owner: dict[str, Any], key: str, what: str) -> list[Any]:
    value = owner.get(key, [])
    if not isinstance(value, list):
        raise InvalidRequest(f"{what}: `{key}` is not a list")
    return value


def _parameters(target: Any, owner: dict[str, Any], own: Mapping[str, type], what: str) -> Any:
    """Fill a message's parameters; gives the one that is about this format and not for the server, None without it."""
    chosen = None
    for key, value in _object(owner.get("parameters", {}), f"`parameters` of {what}").items():
        if key in own:
            if type(value) is not own[key]:
                raise InvalidRequest(f"{what}: {key} is {'true or false' if own[key] is bool else 'a whole number'}")
            chosen = value
        elif isinstance(value, bool):
            target[key].bool_param = value
        elif isinstance(value, int) and value in _INT64:
            target[key].int64_param = value
        elif isinstance(value, int) and 0 <= value < 2**64:
            target[key].uint64_param = value
        elif isinstance(value, float):
            target[key].double_param = value
        elif isinstance(value, str):
            target[key].string_param = value
        else:
            raise InvalidRequest(f"{what}: its parameter {key!r} is no text, number, true or false")
    return chosen


def _plain(parameters: Any) -> dict[str, Any]:
    return dict(_named(parameters))


def _named(parameters: Any) -> Iterator[tuple[str, Any]]:
    for key, value in sorted(parameters.items()):
        choice = value.WhichOneof("parameter_choice")
        if choice is not None:
            yield key, getattr(value, choice)
