"""The server's certificates: read at the start, refused there if they cannot serve, and read again when they change.

Whoever makes a connection gets what the files hold at that moment; connections that are open keep what they have.
Files are looked at with each handshake, so a change needs no signal and no watch that could miss it.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from inferd.config import Tls
from inferd.errors import StartError
from inferd.filestate import states_of

log = logging.getLogger("inferd.tls")

_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_FAULTS: Final = {
    "KEY_VALUES_MISMATCH": "the key is another certificate's",
    "EE_KEY_TOO_SMALL": "the key is shorter than is safe; 2048 bits of RSA or 256 of an elliptic curve do",
    "CA_MD_TOO_WEAK": "the certificate is signed with a hash that is broken; have it signed with SHA-256",
}
_VERIFY: Final = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


@dataclass(frozen=True, slots=True)
class Pems:
    """What the files held, all of it read at one time."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None


class Certificates:
    """The files that the settings name, as contexts of Python's ssl and as bytes for gRPC's own TLS."""

    def __init__(self, settings: Tls) -> None:
        """Reads the files. Raises StartError, with the file at fault, if no client could be served with them."""
        assert settings.certificate is not None
        assert settings.key is not None
        self._settings = settings
        self._paths = [one for one in (settings.certificate, settings.key, settings.client_ca) if one is not None]
        self._seen = states_of(self._paths)
        self._contexts: dict[tuple[str, ...], ssl.SSLContext] = {}
        self.pems = _read(settings)
        self._contexts[()] = _context(settings, ())

    def context(self, *protocols: str) -> ssl.SSLContext:
        """A context for servers that speak `protocols` (ALPN), which always serves what the files hold now."""
        front = _context(self._settings, protocols)
        # A session that is resumed is not checked again, and would outlive the certificate that opened it.
        front.options |= ssl.OP_NO_TICKET
        front.num_tickets = 0
        self._contexts[protocols] = front

        def choose(connection: Any, name: str | None, context: ssl.SSLContext) -> None:
            # Called early in each handshake, also by clients that name no server.
            self.refresh()
            connection.context = self._contexts[protocols]

        front.sni_callback = choose
        return front

    def refresh(self) -> bool:
        """Read the files again if they have changed; True if what they hold now is served from now on.

        What is half written, or does not belong together, is not served: what was served before is, until the files
        are right.
        """
        seen = states_of(self._paths)
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            pems = _read(self._settings)
            if pems == self.pems:
                return False
            made = {protocols: _context(self._settings, protocols) for protocols in self._contexts}
            if _read(self._settings) != pems:
                self._seen = ()  # they changed while they were read: look again
                return False
        except StartError as failure:
            log.error("changed certificates are not served; the ones before are", extra={"reason": str(failure)})
            return False
        self.pems = pems
        self._contexts.update(
            (protocols, context) for protocols, context in made.items() if protocols in self._contexts
        )
        log.info("certificates were read again", extra={"certificate": str(self._settings.certificate)})
        return True


def _read(settings: Tls) -> Pems:
    assert settings.certificate is not None
    assert settings.key is not None
    return Pems(
        _bytes("tls.certificate", settings.certificate),
        _bytes("tls.key", settings.key),
        None if settings.client_ca is None else _bytes("tls.client_ca", settings.client_ca),
    )


def _bytes(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as failure:
        raise StartError(f"{setting}: {path} cannot be read: {failure.strerror}") from failure


def _context(settings: Tls, protocols: tuple[str, ...]) -> ssl.SSLContext:
    """What serves the files as they are. Raises StartError with the file at fault."""
    assert settings.certificate is not None
    assert settings.key is not None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = _VERSIONS[settings.min_version]
    # The client asks for as much work again as it likes otherwise.
    made.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if protocols:
        made.set_alpn_protocols(list(protocols))
    try:
        # Without a password that is wrong OpenSSL would ask for one on the terminal.
        made.load_cert_chain(settings.certificate, settings.key, password=lambda: "")
    except ssl.SSLError as failure:
        fault = "the key is encrypted; give one that is not, readable by the server alone"
        if b"ENCRYPTED" not in _bytes("tls.key", settings.key):
            fault = _FAULTS.get(failure.reason or "", "one of them is not PEM, or its parts are in another order")
        raise StartError(
            f"tls.certificate {settings.certificate} and tls.key {settings.key} do not serve: {fault}"
        ) from failure
    except OSError as failure:
        raise StartError(
            f"tls.certificate {settings.certificate} or tls.key {settings.key} cannot be read: {failure.strerror}"
        ) from failure
    if settings.client_ca is not None:
        try:
            made.load_verify_locations(settings.client_ca)
        except (ssl.SSLError, OSError) as failure:
            raise StartError(f"tls.client_ca: {settings.client_ca} holds no certificates that can be read") from failure
    made.verify_mode = _VERIFY[settings.client_auth]
    return made
