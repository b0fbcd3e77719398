"""Is an answer right? Asked once over gRPC and compared with ONNX Runtime in-process."""

from __future__ import annotations

import socket
import time

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from bench.peers import Absent
from bench.processes import Group
from bench.works import Prepared
from inferd.bench.generator import MODEL_INFER
from inferd.bench.tensors import outputs

READY_TIMEOUT_S = 120.0
ASK_TIMEOUT_S = 30.0
POLL_S = 0.05
# What servers say whose ports are open before their models are loaded.
STARTING = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND})

# A server that is still starting is asked again at once, and no proxy stands in between.
_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
)


def wait_until_ready(address: str, group: Group, work: Prepared | None) -> None:
    """Until a server that has been started takes connections and, if there is a work, answers it, be it wrongly.

    Raises Absent if it ends instead, or takes too long.
    """
    end = time.monotonic() + READY_TIMEOUT_S
    while (why_not := _unready(address, work)) is not None:
        if (how := group.ended()) is not None:
            raise Absent(how)
        if time.monotonic() > end:
            raise Absent(f"was not ready within {READY_TIMEOUT_S:.0f} s ({why_not}): {group.said()}")
        time.sleep(POLL_S)


def _unready(address: str, work: Prepared | None) -> str | None:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), ASK_TIMEOUT_S):
            pass
    except OSError as err:
        return str(err)
    if work is None:
        return None
    with grpc.insecure_channel(address, options=_OPTIONS) as channel:
        try:
            _ask(channel, work)
        except grpc.RpcError as err:
            return _text(err) if err.code() in STARTING else None
    return None


def wrong(address: str, work: Prepared) -> str | None:
    """Why the server's answer to the work's request is not the right one; None if it is."""
    with grpc.insecure_channel(address, options=_OPTIONS) as channel:
        try:
            answer = outputs(_ask(channel, work))
        except grpc.RpcError as err:
            return _text(err)
        except (ValueError, DecodeError) as err:
            return f"its answer cannot be read: {err}"
    for name, expected in work.expected.items():
        if name not in answer:
            return f"no output {name}"
        _, values = answer[name]
        if values.shape != expected.shape:
            return f"output {name} has shape {values.shape}, not {expected.shape}"
        if not np.allclose(values, expected, rtol=work.work.tolerance, atol=work.work.tolerance):
            return f"output {name} differs by more than {work.work.tolerance:g}"
    return None


def _text(err: grpc.RpcError) -> str:
    return " ".join(f"{err.code().name}: {err.details()}".split())


def _ask(channel: grpc.Channel, work: Prepared) -> bytes:
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
        MODEL_INFER, request_serializer=None, response_deserializer=None
    )
    return call(work.request, timeout=ASK_TIMEOUT_S)
