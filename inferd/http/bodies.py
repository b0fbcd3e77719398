"""Bodies of requests, read whole into memory that is bounded, by one of them and by all together."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

READ_S: Final = 30.0
"""What a client is given to send its body."""
_AT_ONCE: Final = 4
_DIGITS: Final = re.compile(r"[0-9]{1,15}", re.ASCII)
# What was refused stays unread, so the connection cannot be used for another request.
_CLOSE: Final = {"connection": "close"}


class Bodies:
    """Reads bodies of up to `limit` bytes; all that are held at a time have at most four times as many."""

    def __init__(self, limit: int, read_s: float = READ_S) -> None:
        self._limit, self._read_s = limit, read_s
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes of the bodies that are being read or worked on."""
        return self._held

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncGenerator[bytes, None]:
        """The body, held until the context ends. Raises HTTPException for one that is too large, late or cut."""
        if request.headers.get("content-encoding", "identity") != "identity":
            raise HTTPException(415, "compressed bodies are not read; send it without content-encoding")
        told = whole_number(request.headers.get("content-length"))
        if told is not None and told > self._limit:
            raise self._too_large()
        parts: list[bytes] = []
        size = 0
        try:
            try:
                async with asyncio.timeout(self._read_s):
                    async for part in request.stream():
                        # Only what has come counts: a client that announces much and sends nothing keeps nobody out.
                        size, self._held = size + len(part), self._held + len(part)
                        if size > self._limit:
                            raise self._too_large()
                        if self._held > _AT_ONCE * self._limit:
                            text = "too many large bodies at a time; try again later"
                            raise HTTPException(429, text, headers={"retry-after": "1", **_CLOSE})
                        parts.append(part)
            except ClientDisconnect:
                raise HTTPException(400, "the body ended early") from None
            except TimeoutError:
                raise HTTPException(408, f"the body took longer than {self._read_s:g} s", headers=_CLOSE) from None
            yield b"".join(parts)
        finally:
            self._held -= size

    def _too_large(self) -> HTTPException:
        text = f"the body is larger than {self._limit} bytes; send less at once, use gRPC, or raise http.max_body_bytes"
        return HTTPException(413, text, headers=_CLOSE)


def whole_number(text: str | None) -> int | None:
    """What a header says, None if it is not there or no number."""
    return int(text) if text is not None and _DIGITS.fullmatch(text) else None
