"""Certificates for one run of the tests: an authority, a server, a client, and a stranger of the same name."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import grpc
import pytest

CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")


class Certificates:
    """`folder` has tls.crt, tls.key and ca.crt, as a secret of Kubernetes would have them."""

    def __init__(self, folder: Path) -> None:
        """Make them all. Skips the test without openssl."""
        found = shutil.which("openssl")
        if found is None:
            pytest.skip("needs the openssl command to make certificates")
        self._openssl = found
        self.folder, self._others = folder / "tls", folder / "others"
        self.folder.mkdir(parents=True)
        self._others.mkdir()
        self._authority("ca", self.folder / "ca.crt")
        self._authority("stranger", self._others / "stranger.crt")
        self._signed("tls", self.folder / "tls.crt", self.folder / "tls.key", "DNS:localhost", "ca")
        for authority, name in (("ca", "client"), ("stranger", "intruder")):
            key = self._others / f"{name}.key"
            self._signed(name, self._others / f"{name}.crt", key, "URI:spiffe://example.test/client", authority)

    def client(self) -> grpc.ChannelCredentials:
        """Of a client that the authority has signed."""
        return self._credentials("client")

    def intruder(self) -> grpc.ChannelCredentials:
        """Of one that calls itself the same and whom another authority has signed."""
        return self._credentials("intruder")

    def nobody(self) -> grpc.ChannelCredentials:
        """Of a client without a certificate."""
        return grpc.ssl_channel_credentials((self.folder / "ca.crt").read_bytes())

    def _credentials(self, name: str) -> grpc.ChannelCredentials:
        key, chain = (self._others / f"{name}.key").read_bytes(), (self._others / f"{name}.crt").read_bytes()
        return grpc.ssl_channel_credentials((self.folder / "ca.crt").read_bytes(), key, chain)

    def _authority(self, name: str, certificate: Path) -> None:
        key = self._others / f"{name}.key"
        self._run("req", "-x509", *CURVE, "-subj", f"/CN={name}", "-keyout", key, "-out", certificate)

    def _signed(self, name: str, certificate: Path, key: Path, alternative: str, authority: str) -> None:
        signer = self.folder / "ca.crt" if authority == "ca" else self._others / f"{authority}.crt"
        self._run(
            "req", "-x509", *CURVE, "-subj", f"/CN={name}", "-addext", f"subjectAltName={alternative}",
            "-addext", "basicConstraints=critical,CA:FALSE",
            "-CA", signer, "-CAkey", self._others / f"{authority}.key", "-keyout", key, "-out", certificate,
        )  # fmt: skip

    def _run(self, *arguments: str | Path) -> None:
        subprocess.run([self._openssl, *arguments], check=True, capture_output=True, timeout=30)
