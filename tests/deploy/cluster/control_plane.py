"""Starts etcd and kube-apiserver on free ports of this machine, and calls kubectl on them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from serve.process import free_ports
from serve.proxies.front import until

API_SERVER = Path(__file__).resolve().parents[3] / "build" / "tools" / "kube-apiserver"
# Work for controllers, which are not here: they count quotas, and let go of claims that nobody uses.
WITHOUT = "ResourceQuota,StorageObjectInUseProtection"
TOKEN = "of-this-test"


@dataclass(frozen=True, slots=True)
class Cluster:
    """What kubectl needs to know."""

    port: int

    def kubectl(self, *words: str, objects: Any = None) -> subprocess.CompletedProcess[str]:
        """The ended call; objects, if given, are its standard input."""
        return subprocess.run(
            ["kubectl", f"--server=https://127.0.0.1:{self.port}", f"--token={TOKEN}", "--insecure-skip-tls-verify",
             "--cache-dir=/dev/null", *words],
            input=yaml.safe_dump_all(objects) if objects is not None else None,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def does(self, *words: str, objects: Any = None) -> str:
        """Its standard output; an error or a warning fails the test."""
        done = self.kubectl(*words, objects=objects)
        assert (done.returncode, done.stderr) == (0, ""), f"kubectl {' '.join(words)}: {done.stderr}"
        return done.stdout

    def would_create(self, one: Any) -> Any:
        """What the server would make of an object, with its defaults; nothing is kept."""
        return json.loads(self.does("create", "--dry-run=server", "--output=json", "--filename=-", objects=[one]))


@contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """A cluster that is ready, until the end of the block. Skips where a part of it is not there."""
    for name in ("etcd", "kubectl"):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed: make test-cluster")
    if not API_SERVER.exists():
        pytest.skip("kube-apiserver is not built: make test-cluster")
    client, peer, port = free_ports(3)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (folder / "tokens.csv").write_text(f"{TOKEN},test,test,system:masters\n")
    with ExitStack() as stack:
        _start(
            stack, folder / "etcd.log",
            "etcd", f"--data-dir={folder}/etcd", f"--listen-client-urls=http://127.0.0.1:{client}",
            f"--advertise-client-urls=http://127.0.0.1:{client}", f"--listen-peer-urls=http://127.0.0.1:{peer}",
        )  # fmt: skip
        server = _start(
            stack, folder / "kube-apiserver.log",
            str(API_SERVER), f"--etcd-servers=http://127.0.0.1:{client}", "--bind-address=127.0.0.1",
            f"--secure-port={port}", f"--cert-dir={folder}/certificates", f"--token-auth-file={folder}/tokens.csv",
            "--authorization-mode=AlwaysAllow", f"--disable-admission-plugins={WITHOUT}",
            "--service-cluster-ip-range=10.0.0.0/24", "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={folder}/key.pem", f"--service-account-signing-key-file={folder}/key.pem",
        )  # fmt: skip
        cluster = Cluster(port)

        def ready() -> bool:
            assert server.poll() is None, (folder / "kube-apiserver.log").read_text()[-2000:]
            return cluster.kubectl("get", "--raw=/readyz").returncode == 0

        until(ready, "kube-apiserver")
        yield cluster


def _start(stack: ExitStack, log: Path, *command: str) -> subprocess.Popen[bytes]:
    file = stack.enter_context(log.open("wb"))
    process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process
