"""The targets by name, and what makes new inputs of old ones."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import codec_changes
from changes import Changes, Headers, Mutate
from client import Client
from codec import Codec
from receive import Receive
from recorded import HEADERS, PSEUDO, infer, typed
from served import HANDLERS, SERVICE

METHODS = (*HANDLERS, "Infer", "InferStream", "Nothing")
OF_REQUESTS = (
    ("grpc-timeout", "1n"), ("grpc-timeout", "1S"), ("grpc-timeout", "99999999H"), ("grpc-timeout", "-1S"),
    ("grpc-encoding", "gzip"), ("grpc-encoding", "deflate"), ("grpc-encoding", "identity"), ("grpc-encoding", "snappy"),
    ("grpc-accept-encoding", "gzip"), ("x-bin", "AAEC"), ("x-bin", "!,A,=="), ("x", "y" * 700), ("content-length", "8"),
    ("te", "gzip"), ("connection", "close"), ("grpc-accept-encoding", ","), ("x-bin", ""), ("Upper", "case"),
    ("triton_grpc_error", "true"),
)  # fmt: skip
OF_ANSWERS = (
    ("grpc-status", "0"), ("grpc-status", "14"), ("grpc-status", "99"), ("grpc-status", "x"), ("grpc-message", ""),
    ("grpc-message", "%E2%98%83%"), ("grpc-message", "y" * 300), ("x", "y"), (":status", "200"),
    ("content-length", "5"),
)  # fmt: skip


def request_headers(random: Random) -> Headers:
    path = f"/{SERVICE}/{random.choice(METHODS)}"
    return [*PSEUDO, (":path", path), *HEADERS, *random.choices(OF_REQUESTS, k=random.choice((0, 1, 1, 2, 3)))]


def request_body(random: Random) -> bytes:
    rows = random.choice((0, 1, 2, 9))
    return random.choice((b"", b"abc", infer(rows), typed(), infer(name="other"), bytes(300)))


def answer_headers(random: Random) -> Headers:
    status = (":status", random.choice(("200", "200", "200", "100", "404", "503", "9", "1234")))
    first = [status, ("content-type", "application/grpc")] if random.random() < 0.6 else []
    return [*first, *random.choices(OF_ANSWERS, k=random.choice((1, 1, 2, 3)))]


def answer_body(random: Random) -> bytes:
    return random.choice((b"", b"ok", b"another", bytes(300)))


TARGETS: dict[str, Callable[[], Client | Codec | Receive]] = {"receive": Receive, "codec": Codec, "client": Client}
CHANGES: dict[str, Callable[[bytes, int, int, Mutate], bytes]] = {
    "receive": Changes(request_headers, request_body).change,
    "codec": codec_changes.change,
    "client": Changes(answer_headers, answer_body, head=1).change,
}
