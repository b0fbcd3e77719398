"""Sockets that listen, from addresses as gRPC writes them."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from typing import Final

BACKLOG: Final = 1024
_ABSENT: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def listen(address: str, *, reuse_port: bool = False) -> tuple[list[socket.socket], int]:
    """Sockets for HOST:PORT, [IPv6]:PORT or unix:PATH, and the port; 0 lets the system choose. Raises OSError.

    A name gets a socket for each of its addresses. Nobody else can listen on the same port at the same time, except
    with `reuse_port` who asks for the same.
    """
    scheme, _, rest = address.partition(":")
    if scheme == "unix":
        return [_unix(rest.removeprefix("//"))], 1  # as gRPC says it: the path is the address, and 1 no port
    if scheme in ("ipv4", "ipv6", "dns"):
        address = rest.lstrip("/")
    host, colon, digits = address.rpartition(":")
    if not colon or not digits.isdecimal():
        host, digits = address, "0"
    return _tcp(host.removeprefix("[").removesuffix("]"), int(digits), reuse_port)


def _tcp(host: str, port: int, reuse_port: bool) -> tuple[list[socket.socket], int]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    made: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, where in dict.fromkeys((family, where) for family, _, _, _, where in found):
            try:
                made.append(_listening(family, (where[0], port, *where[2:]), reuse_port))
            except OSError as failure:
                if failure.errno not in _ABSENT:
                    raise
                absent = failure  # a name may stand for an address of a kind that is switched off here
                continue
            port = made[0].getsockname()[1]
        if not made and absent is not None:
            raise absent
    except BaseException:
        for one in made:
            one.close()
        raise
    return made, port


def _listening(family: int, where: tuple[object, ...], reuse_port: bool) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Lets a restart take the port while old connections linger; two listeners still exclude each other.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(where[0] != "::"))
        made.setblocking(False)
        made.bind(where)
        # Of two that bind at the same time both succeed, and the later listen fails.
        made.listen(BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


def _unix(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.stat(path).st_mode) and not _is_heard(path):
                os.unlink(path)  # of a process that is gone
        made.setblocking(False)
        made.bind(path)
        made.listen(BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


def _is_heard(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        return trial.connect_ex(path) == 0
