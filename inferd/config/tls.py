"""Settings of TLS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from inferd.config.kinds import FilePath, Section


class Tls(Section):
    """TLS: on the gRPC port once it has a certificate, and on the HTTP ports if they are to have it too."""

    certificate: FilePath | None = Field(
        default=None,
        description="The server's certificate and those that signed it, PEM. Read again when it changes, for new "
        "connections; those that are open stay.",
    )
    key: FilePath | None = Field(
        default=None, description="Its private key, PEM and not encrypted; read again likewise."
    )
    client_ca: FilePath | None = Field(
        default=None,
        description="Certificates that sign those of clients, PEM; read again likewise.",
    )
    client_auth: Literal["none", "optional", "required"] = Field(
        default="none",
        description="Whether clients are asked for a certificate: not at all; optional, and one that is shown must be "
        "right (native transport only); or required.",
    )
    min_version: Literal["1.2", "1.3"] = Field(
        default="1.2", description="Oldest version of TLS that is spoken; 1.3 is for the native transport only."
    )
    http: bool = Field(default=False, description="TLS on the HTTP port as well, with the same certificates.")
    metrics: bool = Field(default=False, description="TLS on the metrics port as well, with the same certificates.")


def tls_contradictions(tls: Tls) -> Iterator[tuple[tuple[str, ...], str]]:
    """What of the settings of TLS cannot be meant, as in Settings."""
    one, other = ("tls.certificate", "tls.key") if tls.key is None else ("tls.key", "tls.certificate")
    if (tls.certificate is None) != (tls.key is None):
        yield (one, other), f"{one} is set and {other} is not; a server needs both"
    if tls.certificate is None:
        given = [name for name in ("http", "metrics") if getattr(tls, name)]
        if tls.client_auth != "none":
            given.append("client_auth")
        for name in given:
            yield (f"tls.{name}", "tls.certificate"), f"tls.{name} needs tls.certificate and tls.key"
    if tls.client_auth != "none" and tls.client_ca is None:
        yield (
            ("tls.client_auth", "tls.client_ca"),
            f"tls.client_auth is {tls.client_auth} and tls.client_ca is not set, so no certificate could be checked",
        )
