"""The server of the memory benchmark with a leak: it keeps every request that it has decoded."""

from __future__ import annotations

from bench import memory_server
from inferd._native.wire import Request, decode
from inferd.rpc import answering


def main() -> None:
    """Serve, and forget nothing."""
    kept: list[Request] = []

    def keep(body: bytes) -> Request:
        kept.append(decode(body))
        return kept[-1]

    answering.decode = keep
    memory_server.main()


if __name__ == "__main__":
    main()
