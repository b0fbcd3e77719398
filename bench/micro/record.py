"""The figures of a commit as they are stored: for reading, and to name the commit to compare with."""

from __future__ import annotations

import subprocess
import sysconfig
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.micro.measure import Timed
from inferd.bench.machine import this_machine
from inferd.bench.result import Machine
from inferd.errors import StartError

BASELINE = Path(__file__).resolve().parents[1] / "baseline.json"


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Figure(_Stored):
    """What one operation costs."""

    name: str
    bytes_per_op: int
    median_ns: float
    min_ns: float
    spread: float = Field(description="Half the distance between the quartiles, as a part of the median.")
    instructions: float | None = None

    @property
    def bytes_per_second(self) -> float | None:
        """How fast its bytes go by; None for operations that have none."""
        return self.bytes_per_op / self.median_ns * 1e9 if self.bytes_per_op else None


class Record(_Stored):
    """One measurement of all cases."""

    schema_: Literal["inferd-micro/1"] = Field(default="inferd-micro/1", alias="schema")
    commit: str | None
    date: str = Field(description="UTC, ISO 8601.")
    compiler: str
    machine: Machine
    figures: tuple[Figure, ...]

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def figure(timed: Timed, instructions: float | None) -> Figure:
    """The figures of one case."""
    samples_ns = timed["samples_ns"]
    middle = median(samples_ns)
    low, _, high = quantiles(samples_ns, n=4, method="inclusive") if len(samples_ns) > 1 else (middle, middle, middle)
    return Figure(
        name=timed["name"],
        bytes_per_op=timed["bytes_per_op"],
        median_ns=round(middle, 2),
        min_ns=round(min(samples_ns), 2),
        spread=round((high - low) / 2 / middle, 4),
        instructions=None if instructions is None else round(instructions, 2),
    )


def record(figures: tuple[Figure, ...], commit: str | None) -> Record:
    """The figures, and where and with what they were measured."""
    return Record(
        commit=commit,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        compiler=_compiler(),
        machine=this_machine(),
        figures=figures,
    )


def stored(path: Path = BASELINE) -> Record | None:
    """The stored figures; None if there are none. Raises StartError if the file is not as `micro --store` writes it."""
    if not path.exists():
        return None
    try:
        return Record.model_validate_json(path.read_bytes())
    except ValidationError as wrong:
        count = wrong.error_count()
    raise StartError(f"{path} cannot be read ({count} errors): write it anew with micro --store")


def _compiler() -> str:
    command = (sysconfig.get_config_var("CC") or "cc").split()[0]
    try:
        said = subprocess.run([command, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return "none"
    return said.partition("\n")[0] or command
