"""A hostile client as a process of its own, and a sink that only takes what it sends.

`python -m bench.abuse.attacker FLOOD HOST:PORT MESSAGE_FILE` attacks until it is ended; with `sink` for the flood it
listens there instead. The sink is what a flood is compared with: sending costs the machine as much, and a server
nothing.
"""

from __future__ import annotations

import selectors
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from bench.abuse.floods import FLOODS

CONNECTIONS = 4
AGAIN_S = 0.001


def attack(name: str, address: tuple[str, int], message: bytes) -> None:
    """Send on a few connections, and connect again where one was closed."""
    selector = selectors.DefaultSelector()
    for _ in range(CONNECTIONS):
        _connect(selector, name, address, message)
    while True:
        for key, events in selector.select(1.0):
            one: socket.socket = key.fileobj  # type: ignore[assignment]
            left: list[bytes]
            pieces, left = key.data
            try:
                if events & selectors.EVENT_READ and not one.recv(65536):
                    raise ConnectionResetError
                if events & selectors.EVENT_WRITE:
                    _send(one, pieces, left)
            except BlockingIOError:
                continue
            except OSError:
                selector.unregister(one)
                one.close()
                time.sleep(AGAIN_S)
                _connect(selector, name, address, message)


def _connect(selector: selectors.BaseSelector, name: str, address: tuple[str, int], message: bytes) -> None:
    one = socket.create_connection(address, timeout=10)
    one.setblocking(False)
    selector.register(one, selectors.EVENT_READ | selectors.EVENT_WRITE, (FLOODS[name](message), []))


def _send(one: socket.socket, pieces: Iterator[bytes], left: list[bytes]) -> None:
    if not left:
        piece = next(pieces, None)
        if piece is None:
            with suppress(OSError):
                one.shutdown(socket.SHUT_WR)
            return
        left.append(piece)
    sent = one.send(left[0])
    if sent == len(left[0]):
        left.clear()
    else:
        left[0] = left[0][sent:]


def sink(address: tuple[str, int]) -> None:
    """Take whatever comes and say nothing."""
    selector = selectors.DefaultSelector()
    listener = socket.create_server(address)
    listener.setblocking(False)
    selector.register(listener, selectors.EVENT_READ)
    room = bytearray(1 << 18)
    while True:
        for key, _ in selector.select():
            one: socket.socket = key.fileobj  # type: ignore[assignment]
            if one is listener:
                accepted, _ = listener.accept()
                accepted.setblocking(False)
                selector.register(accepted, selectors.EVENT_READ)
                continue
            with suppress(OSError):
                if one.recv_into(room):
                    continue
            selector.unregister(one)
            one.close()


def main() -> None:
    """See the module."""
    name, address, path = sys.argv[1:]
    host, _, port = address.rpartition(":")
    if name == "sink":
        sink((host, int(port)))
    else:
        attack(name, (host, int(port)), Path(path).read_bytes())


if __name__ == "__main__":
    main()
