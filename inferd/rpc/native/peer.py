"""Who is at the other end of a connection, in gRPC's words."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from inferd._native.h2 import Connection

COMMON_NAME: Final = "x509_common_name"
ALTERNATIVE_NAME: Final = "x509_subject_alternative_name"


def address(connection: Connection) -> str:
    """The client's address, as a URI of gRPC's."""
    name: Any = connection.peername
    if not isinstance(name, tuple):
        return "unix:"
    host, port = name[0], name[1]
    return f"ipv6:{quote(f'[{host}]', safe=':')}:{port}" if ":" in host else f"ipv4:{host}:{port}"


def auth_context(connection: Connection) -> Mapping[str, tuple[bytes, ...]]:
    """What TLS has proved about the client; its certificate only if one was asked for."""
    found = connection.transport and connection.transport.get_extra_info("ssl_object")
    if not found:
        return {"transport_security_type": (b"insecure",)}
    context = {"transport_security_type": (b"ssl",)}
    certificate = found.getpeercert() or {}
    names = [value for parts in certificate.get("subject", ()) for key, value in parts if key == "commonName"]
    others = [value for _, value in certificate.get("subjectAltName", ())]
    for key, values in ((COMMON_NAME, names), (ALTERNATIVE_NAME, others)):
        if values:
            context[key] = tuple(value.encode() for value in values)
    if der := found.getpeercert(binary_form=True):
        context["x509_pem_cert"] = (ssl.DER_cert_to_PEM_cert(der).encode(),)
    return context


def identity_key(context: Mapping[str, tuple[bytes, ...]]) -> str | None:
    """Which entry of the context says who the client is."""
    return next((key for key in (ALTERNATIVE_NAME, COMMON_NAME) if key in context), None)
