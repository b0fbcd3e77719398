"""Calls whose end comes from the transport: the handler hears of it, and nothing else is made of what came before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import h2.events
import h2.settings
import pytest
from native_server import ECHO, peer, run, serving

GARBLED = {
    "a flag that is neither 0 nor 1": b"\2\0\0\0\0",
    "compressed without an encoding": b"\1\0\0\0\0",
    "a message too large": b"\0\xff\xff\xff\xff",
    "half a message": b"\0\0\0\0\3a",
}
BROKEN = b"\0\0\1\4\0\0\0\0\0\0"  # SETTINGS of one byte


@pytest.mark.parametrize("garbled", GARBLED.values(), ids=GARBLED)
def test_a_stream_that_ends_garbled_is_no_whole_stream_to_its_handler(
    garbled: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Any] = []

    async def collect(requests: AsyncIterator[bytes], context: Any) -> bytes:
        try:
            async for one in requests:
                seen.append(one)
            seen.append("whole")
        except BaseException as ended:
            seen.append(type(ended))
            raise
        return b""

    async def main() -> None:
        handlers = {"S": grpc.stream_unary_rpc_method_handler(collect)}
        async with serving(handlers) as (_, port), peer(port) as one:
            stream = one.call("S")
            one.message(stream, b"abc", end=False)
            one.h2.send_data(stream, garbled, end_stream=True)
            # The connection breaks in the same read, so that the end of the call cannot be sent.
            one.writer.write(one.h2.data_to_send() + BROKEN)
            await one.closed()
        assert "whole" not in seen

    run(main)
    assert not caplog.records


@pytest.mark.parametrize("first", range(1, 8))
def test_a_message_is_whole_however_few_bytes_the_client_takes_at_a_time(first: int) -> None:
    async def main() -> None:
        async with serving(ECHO) as (_, port), peer(port) as one:
            one.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: first})
            stream = one.call()
            one.message(stream, b"abcdef")
            await one.flush()
            got = b""
            while len(got) < 11:
                event: Any = await one.until(lambda event: isinstance(event, h2.events.DataReceived))
                one.events.remove(event)
                got += event.data
                if len(got) < 11:
                    one.h2.increment_flow_control_window(2, stream)
                    await one.flush()
            assert got == b"\0\0\0\0\6abcdef"
            assert (await one.ended(stream))["grpc-status"] == "0"

    run(main)
