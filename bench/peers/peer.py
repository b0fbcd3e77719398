"""What a peer is: something that can be prepared on this machine and then started to serve a work."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from bench.processes import Start, last_line
from bench.result import Kind
from bench.works import Prepared

INSIDE = Path(__file__).parent / "inside"
"""Programs that run inside a peer, with the packages of its own environment."""


class Absent(Exception):
    """A peer cannot take part. The text is one line that says why."""


class Peer(Protocol):
    """Prepared once, then started anew for each work."""

    @property
    def name(self) -> str:
        """What it is called, on the command line and in tables."""
        ...

    @property
    def kind(self) -> Kind:
        """A floor runs no model and answers the same bytes each time."""
        ...

    @property
    def grpc(self) -> bool:
        """Whether it ends its answers with a gRPC status."""
        ...

    def prepare(self, builds: Path) -> Mapping[str, str]:
        """Make below `builds` what it needs, if it is not there, and give versions. Raises Absent."""
        ...

    def start(self, work: Prepared, folder: Path, port: int) -> Start:
        """Write into `folder` what it reads, and give the command that serves on 127.0.0.1 at `port`.

        Raises Absent if it cannot serve this work.
        """
        ...


def run(*command: str | Path) -> str:
    """Output of a command that prepares something. Raises Absent if it fails or is not there."""
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    except OSError as err:
        raise Absent(f"{command[0]}: {err.strerror}") from err
    if done.returncode:
        raise Absent(f"{' '.join(map(str, command[:4]))} failed: {last_line(done.stderr or done.stdout)}")
    return done.stdout


def virtual_environment(folder: Path, requirements: Sequence[str]) -> Path:
    """The Python of a virtual environment with these packages, made if it is not there. Raises Absent."""
    python, stamp = folder / "bin" / "python", folder / "requirements.txt"
    wanted = "".join(f"{one}\n" for one in requirements)
    if not stamp.exists() or stamp.read_text() != wanted:
        run(sys.executable, "-m", "venv", "--clear", "--without-pip", folder)
        run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", *requirements)
        # Last, so that an environment that was not finished is made again.
        stamp.write_text(wanted)
    return python


def versions(python: Path, packages: Sequence[str]) -> dict[str, str]:
    """Versions of packages as the metadata of an environment has them."""
    script = "import sys; from importlib.metadata import version; [print(version(name)) for name in sys.argv[1:]]"
    return dict(zip(packages, run(python, "-c", script, *packages).split(), strict=True))
