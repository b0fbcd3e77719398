"""Builds of two states of the repository, made alike: the base commit, and the files as they are now.

Both lie under build/bench and are kept: the base by its commit, the head by what it was built from.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from inferd.errors import StartError

# What a build is made from.
SOURCES = ("ext", "inferd", "proto", "setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")
# Switches of setup.py that make another kind of build.
SWITCHES = ("INFERD_DEBUG", "INFERD_SANITIZE")


class Checkout:
    """A git checkout, and the builds made from it."""

    def __init__(self, root: Path) -> None:
        """`root` is the folder that holds .git."""
        self.root = root
        self._builds = root / "build" / "bench"

    def commit(self, ref: str) -> str | None:
        """The full name of a commit; None if it is not here."""
        found = self._git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}", check=False)
        return found.decode().strip() or None

    def default_base(self, stored: str | None) -> str:
        """The commit to compare with: the one whose figures are stored, or else what this work started from.

        Raises StartError if it cannot be told.
        """
        if stored is not None:
            if found := self.commit(stored):
                return found
            raise StartError(f"commit {stored} of the stored figures is not here: fetch it, or name one with --base")
        head = self.commit("HEAD")
        forked = self._git("merge-base", "HEAD", "origin/main", check=False).decode().strip()
        if forked and forked != head:
            return forked
        before = self.commit("HEAD") if self.has_changes() else self.commit("HEAD~1")
        if before is None:
            raise StartError("there is no commit to compare with: name one with --base")
        return before

    def has_changes(self) -> bool:
        """Whether a source of the build differs from the last commit."""
        return bool(self._git("status", "--porcelain", "--", *SOURCES))

    def base(self, commit: str) -> Path:
        """The build of a commit."""
        place = self._builds / "base" / f"{commit}-{sys.implementation.cache_tag}"
        if not (place / "lib").exists():
            _fresh(place)
            with tarfile.open(fileobj=io.BytesIO(self._git("archive", "--format=tar", commit))) as archive:
                archive.extractall(place, filter="data")
            _build(place, f"base {commit[:12]}")
        return place / "lib"

    def head(self) -> Path:
        """The build of the files as they are; those that git ignores are left out."""
        listed = self._git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *SOURCES)
        paths = sorted({Path(name) for name in listed.decode().split("\0") if name})
        contents = {path: (self.root / path).read_bytes() for path in paths if (self.root / path).is_file()}
        digest = hashlib.sha256()
        for path, content in contents.items():
            digest.update(f"{path} {len(content)}\n".encode() + content)
        place = self._builds / "head" / f"{digest.hexdigest()[:16]}-{sys.implementation.cache_tag}"
        if not (place / "lib").exists():
            _fresh(place.parent)
            for path, content in contents.items():
                (place / path).parent.mkdir(parents=True, exist_ok=True)
                (place / path).write_bytes(content)
            _build(place, "head")
        return place / "lib"

    def _git(self, *arguments: str, check: bool = True) -> bytes:
        done = subprocess.run(["git", "-C", str(self.root), *arguments], capture_output=True, check=False)
        if check and done.returncode:
            raise StartError(f"git {arguments[0]} failed: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout


def _fresh(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _build(place: Path, name: str) -> None:
    """Build in `place`; its lib appears only when all of it is there."""
    print(f"building the {name}", file=sys.stderr)
    done = subprocess.run(
        [
            sys.executable, "setup.py", "--quiet", "build",
            "--build-base=build/bench", "--build-lib=build/bench/lib", f"--parallel={os.cpu_count() or 1}",
        ],
        cwd=place,
        env=dict(_environment()),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        last = "\n".join(done.stdout.strip().splitlines()[-15:])
        raise StartError(f"the {name} could not be built in {place}: {last}")
    (place / "build" / "bench" / "lib").rename(place / "lib")


def _environment() -> Iterator[tuple[str, str]]:
    for name, value in os.environ.items():
        if name not in SWITCHES and name != "PYTHONPATH":
            yield name, value
