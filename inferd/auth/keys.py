"""API keys: made here, kept as hashes, compared in constant time.

A key is a name and 256 bits that we drew, so a slow hash would add nothing: there is nothing to guess, and every wrong
key would cost as much as a right one. What is stored is salted, so that equal secrets do not look equal.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from inferd.errors import StartError

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_@-]{0,63}", re.ASCII)
_SECRET_BYTES: Final = 32
_SALT_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Entry:
    """What is kept of one key."""

    name: str
    salt: bytes
    digest: bytes

    def line(self) -> str:
        """As it stands in the file."""
        return f"{self.name}:{self.salt.hex()}:{self.digest.hex()}"


# Compared with where no name fits, so that it takes as long to be told so.
_NOBODY: Final = Entry("", bytes(_SALT_BYTES), bytes(32))


def make(name: str) -> tuple[str, Entry]:
    """A new key for a name, and what to keep of it. Raises StartError for a name that cannot be one."""
    if NAME.fullmatch(name) is None:
        raise StartError("a key's name is of 1 to 64 letters, digits, and _ @ - after the first")
    secret, salt = secrets.token_urlsafe(_SECRET_BYTES), secrets.token_bytes(_SALT_BYTES)
    return f"{name}.{secret}", Entry(name, salt, _digest(secret, salt))


def add(path: Path, entry: Entry) -> None:
    """Add an entry to a file, which is made for the owner alone if there is none. Raises StartError."""
    try:
        with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+", encoding="utf-8") as file:
            text = file.read()
            # In one write: a server that reads it meanwhile finds the entry whole or not at all.
            file.write(("" if not text or text.endswith("\n") else "\n") + entry.line() + "\n")
    except OSError as failure:
        raise StartError(f"{path} cannot be written: {failure.strerror}") from failure


class Keys:
    """The keys of one file."""

    def __init__(self, text: str) -> None:
        """One entry a line, NAME:SALT:HASH; a name may have several keys. Raises StartError with the line at fault."""
        self._by_name: dict[str, list[Entry]] = {}
        for number, line in enumerate(text.splitlines(), start=1):
            line = line.strip()
            if line and not line.startswith("#"):
                entry = _entry(line, number)
                self._by_name.setdefault(entry.name, []).append(entry)

    @property
    def names(self) -> list[str]:
        """Who has a key."""
        return sorted(self._by_name)

    def find(self, key: str) -> str | None:
        """The name of whoever has this key."""
        name, _, secret = key.partition(".")
        found = None
        for entry in self._by_name.get(name, [_NOBODY]):
            if hmac.compare_digest(_digest(secret, entry.salt), entry.digest):
                found = entry.name
        return found or None


def _digest(secret: str, salt: bytes) -> bytes:
    return hashlib.blake2b(secret.encode(), salt=salt, digest_size=32, person=b"inferd key").digest()


def _entry(line: str, number: int) -> Entry:
    name, *rest = line.split(":")
    try:
        salt, digest = (bytes.fromhex(part) for part in rest)
    except ValueError:
        salt = digest = b""
    if NAME.fullmatch(name) is None or len(salt) != _SALT_BYTES or len(digest) != 32:
        raise StartError(f"line {number} is no key; `inferd key NAME` makes one")
    return Entry(name, salt, digest)
