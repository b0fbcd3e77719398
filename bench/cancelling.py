"""Calls that a client takes back: at once, while they wait, while they run, or a moment too late."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Final

import grpc

from inferd.errors import Code

CALLS_AT_ONCE: Final = 64
LONGEST_WAIT_S: Final = 0.003
METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"
OPTIONS: Final = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))


def cancel(address: str, requests: Sequence[bytes], count: int, seed: int) -> Counter[Code]:
    """Make `count` calls, cancel each after a random wait, and count the ends that they took."""
    return asyncio.run(_cancel(address, requests, count, random.Random(seed)))


async def _cancel(address: str, requests: Sequence[bytes], count: int, chance: random.Random) -> Counter[Code]:
    ends: Counter[Code] = Counter()
    left = iter(range(count))

    async def worker(infer: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]) -> None:
        for number in left:
            call = infer(requests[number % len(requests)])
            await asyncio.sleep(chance.choice((0.0, chance.uniform(0, LONGEST_WAIT_S))))
            call.cancel()
            ends[Code((await call.code()).value[0])] += 1

    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        infer: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        await asyncio.gather(*(worker(infer) for _ in range(CALLS_AT_ONCE)))
    return ends
