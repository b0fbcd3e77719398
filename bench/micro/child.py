"""Starts `measure` on a build: as it is for times, under callgrind for instructions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from bench.micro.measure import Measured
from inferd.errors import StartError

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Timing:
    """How long to measure: `repeats` figures per case, each over at least `sample_ns`."""

    repeats: int
    sample_ns: int


def times(build: Path, names: Sequence[str], timing: Timing) -> Measured:
    """Time the cases on a build."""
    return _run([], build, ["time", f"--repeats={timing.repeats}", f"--sample-ns={timing.sample_ns}"], names)


def has_valgrind() -> bool:
    """Whether instructions can be counted here."""
    return shutil.which("valgrind") is not None


def instructions(build: Path, names: Sequence[str]) -> Mapping[str, float]:
    """Instructions per operation, by name of the case; cases that the build cannot do are left out.

    The same build gives the same figures, to a fraction of an instruction: what a run costs besides the
    operations is in the count for n as in the count for 2 n, and their difference is free of it.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "counts"
        # What is imported has paths of equal length whatever is measured: they decide where later objects lie.
        link = Path(folder) / "build"
        link.symlink_to(build.resolve())
        callgrind = ["valgrind", "--tool=callgrind", "--quiet", "--dump-before=getppid", f"--callgrind-out-file={out}"]
        found = {}
        for one in _run(callgrind, link, ["instructions"], names)["counted"]:
            # The first file has what came before the first mark.
            once, twice = (_total(out, one["first_mark"] + number) for number in (2, 3))
            found[one["name"]] = (twice - once) / one["count"]
        return found


def _total(out: Path, number: int) -> int:
    """The instructions in one of the files that callgrind wrote."""
    path = out.with_name(f"{out.name}.{number}")
    for line in path.read_text().splitlines():
        if line.startswith("totals: "):
            return int(line.removeprefix("totals: "))
    raise StartError(f"{path} has no line of totals; is valgrind older than 3.15?")


def _run(prefix: Sequence[str], build: Path, arguments: Sequence[str], names: Sequence[str]) -> Measured:
    """What `measure` found. Only the build, this package and the installed libraries can be imported there."""
    paths = [build, ROOT, sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    done = subprocess.run(
        # Without site there is no .pth file, and so no editable installation that would hide the build.
        [
            *(*prefix, sys.executable, "-P", "-S", "-m", "bench.micro.measure"),
            *(f"--build={build}", *arguments, "--names", *names),
        ],
        env={
            "PATH": os.defpath,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StartError(f"measuring {build} failed with {done.returncode}: {done.stderr.strip()[-1000:]}")
    return cast("Measured", json.loads(done.stdout))
