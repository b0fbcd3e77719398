"""inferd itself, once for each of its transports, as `inferd serve` starts it: every setting at its default."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import ClassVar, Final, get_args

from bench.peers.peer import Absent, run
from bench.processes import Start
from bench.result import Kind
from bench.works import Prepared
from inferd.config import Settings
from inferd.version import version

ROOT: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Inferd:
    """The inferd that this Python imports."""

    transport: str
    kind: ClassVar[Kind] = "inferd"
    grpc: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """With its transport."""
        return f"inferd ({self.transport})"

    def prepare(self, builds: Path) -> Mapping[str, str]:
        """It is there."""
        told = {"inferd": version()} | {name: metadata.version(name) for name in ("onnxruntime", "grpcio", "uvloop")}
        # Without git the figures are good all the same.
        with suppress(Absent):
            told["commit"] = run("git", "-C", ROOT, "describe", "--always", "--dirty").strip()
        return told

    def start(self, work: Prepared, folder: Path, port: int) -> Start:
        """Serve the same repository that Triton is given."""
        return Start(
            (
                *(sys.executable, "-m", "inferd", "serve", work.write_repository(folder)),
                *(f"--transport={self.transport}", "--host=127.0.0.1", f"--grpc-port={port}"),
                *("--http-port=0", "--metrics-port=0", "--log-format=json"),
            )
        )


def transports() -> tuple[str, ...]:
    """Those that the settings offer, the default one first."""
    field = Settings.model_fields["transport"]
    return tuple(sorted(get_args(field.annotation), key=lambda name: name != field.default))
