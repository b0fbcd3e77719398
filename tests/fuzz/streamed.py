"""Conversations of streamed inference, recorded like the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from recorded import Talk, infer
from steps import Kind


async def streamed(talk: Talk) -> dict[int, str]:
    one, two = talk.call("InferStream", ("grpc-accept-encoding", "gzip")), talk.call("InferStream")
    for body in (infer(), infer(4, 90), b"\xff", infer(name="nobody"), infer(0, 1)):
        talk.message(one, body, end=False)
    talk.message(two, infer(3), end=False)
    await talk.send(pieces=100)
    await talk.do(Kind.TAKE)
    await talk.do(Kind.TAKE)
    await talk.do(Kind.SETTLE, b"\2")
    for number in range(20):
        talk.message(two, infer(), end=number == 19)
    talk.message(one, infer())
    await talk.send()
    for _ in range(8):
        await talk.do(Kind.TAKE)
        await talk.do(Kind.SETTLE, b"\1")
    return {one: "0", two: "0"}


async def streams_that_fail(talk: Talk) -> dict[int, str]:
    true_errors = ("triton_grpc_error", "true")
    one, two, late = (
        talk.call("InferStream", true_errors), talk.call("InferStream", true_errors),
        talk.call("InferStream", ("grpc-timeout", "1H")),
    )  # fmt: skip
    for body in (infer(), infer(), infer(name="nobody")):
        for stream in (one, late):
            talk.message(stream, body, end=False)
    talk.message(two, infer(), end=False)
    await talk.send()
    talk.h2.reset_stream(two)
    await talk.send()
    await talk.do(Kind.TAKE)
    await talk.do(Kind.SETTLE)
    await talk.do(Kind.LATER, b"\x2f")
    return {one: "5", late: "4"}


CONVERSATIONS: dict[str, Callable[[Talk], Awaitable[dict[int, str]]]] = {
    one.__name__: one for one in (streamed, streams_that_fail)
}
