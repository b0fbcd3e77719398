"""The tools of others that `make tools` builds, and TestService in a process of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
TOOLS = HERE.parents[1] / "build" / "tools"
WAIT_S = 40.0


def tool(name: str) -> Path:
    """One of the tools; without it the test is skipped."""
    if not (TOOLS / name).exists():
        pytest.skip(f"build/tools/{name} is not there; `make tools` builds it")
    return TOOLS / name


@pytest.fixture(scope="session")
def h2spec() -> Path:
    return tool("h2spec")


@pytest.fixture(scope="session")
def interop_client() -> Path:
    return tool("interop-client")


@pytest.fixture(scope="session")
def compressed_client() -> Path:
    return tool("compressed")


@pytest.fixture(scope="session")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what protoc makes of our protos. Only server processes import it."""
    folder = tmp_path_factory.mktemp("stubs")
    protos = HERE / "proto"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}", f"--python_out={folder}"]
    names = [path.name for path in sorted(protos.glob("*.proto"))]
    subprocess.run([*command, f"--grpc_python_out={folder}", *names], check=True, timeout=WAIT_S)
    return folder


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost that signs itself, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command to make certificates")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "2", "-subj", "/CN=tester", "-addext", "subjectAltName=DNS:localhost",
            "-keyout", folder / "key.pem", "-out", folder / "certificate.pem",
        ],
        check=True, capture_output=True, timeout=WAIT_S,
    )  # fmt: skip
    return folder / "certificate.pem", folder / "key.pem"


@pytest.fixture(scope="module", params=["native", "grpcio"])
def transport(request: pytest.FixtureRequest) -> str:
    """Who serves: ours, and the reference that tells a failing client from a failing server."""
    name: str = request.param
    return name


@contextmanager
def serving(transport: str, stubs: Path, *files: Path) -> Iterator[int]:
    """The port of a server process, which must end well and say nothing of what went wrong."""
    with subprocess.Popen(
        [sys.executable, HERE / "server.py", transport, stubs, *files],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=HERE.parents[1],
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.strip().isdecimal(), f"no port came, but {line!r} and {process.communicate()[1]}"
            yield int(line)
            process.terminate()
            _, said = process.communicate(timeout=WAIT_S)
            assert (process.returncode, said) == (0, "")
        finally:
            process.kill()
