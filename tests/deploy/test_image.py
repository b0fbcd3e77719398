"""The Dockerfiles and what they install, without building them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = ("Dockerfile", "Dockerfile.cuda")
LOCKS = ("requirements", "requirements-build", "requirements-cuda11", "requirements-cuda12")
DEPLOYED = [lock for lock in LOCKS if lock != "requirements-build"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def locked(name: str) -> dict[str, Version]:
    """The version of each package of a lock."""
    text = (ROOT / "deploy" / "image" / f"{name}.lock").read_text()
    return {found[1]: Version(found[2]) for found in re.finditer(r"^([a-z0-9.-]+)==(\S+)", text, re.M)}


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_finds_no_fault(name: str) -> None:
    found = shutil.which("hadolint", path=os.pathsep.join((os.path.dirname(sys.executable), os.environ["PATH"])))
    if found is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([found, ROOT / name], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_runs_as_nobody_and_knows_how_to_stop_and_how_it_is(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()
    for wanted in ("USER 65532:65532", "STOPSIGNAL SIGTERM", 'ENTRYPOINT ["inferd"]'):
        assert wanted in lines
    [health] = [line for line in lines if line.startswith("HEALTHCHECK ")]
    assert health.endswith('CMD ["inferd", "health"]')
    copied = {
        word for line in lines if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]
    }
    assert not [word for word in copied if word in (".", "./")]


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_of_a_lock_has_its_hashes(name: str) -> None:
    text = (ROOT / "deploy" / "image" / f"{name}.lock").read_text()
    packages = [block for block in re.split(r"^(?=\S)", text, flags=re.M) if block.strip()]
    assert len(packages) == len(locked(name)) > 5
    assert not [block for block in packages if "--hash=sha256:" not in block]


@pytest.mark.parametrize("name", DEPLOYED)
def test_what_is_locked_is_as_new_as_the_project_asks_for(name: str) -> None:
    have = locked(name)
    for package, wanted in asked_for(name).items():
        assert have[package] in wanted.specifier, wanted


@pytest.mark.parametrize("name", DEPLOYED)
def test_all_that_the_project_asks_for_is_locked(name: str) -> None:
    assert asked_for(name).keys() - locked(name).keys() == set(), "run `make locks`"


@pytest.mark.parametrize("name", LOCKS)
def test_what_locked_packages_ask_for_is_locked_too(name: str) -> None:
    """By what is installed here: of packages whose version here is the one that is locked."""
    have, missing = locked(name), set()
    for package, version in have.items():
        try:
            found = distribution(package)
        except PackageNotFoundError:
            continue
        if Version(found.version) != version:
            continue
        for one in map(Requirement, found.requires or ()):
            if not one.marker or one.marker.evaluate({"extra": ""}):
                missing |= {f"{package} needs {one}"} if plain(one.name) not in have else set()
    assert missing == set(), "run `make locks`"


def asked_for(name: str) -> dict[str, Requirement]:
    """By the names that pip writes: what the project needs, what traces need, and what the GPU's own extra does."""
    extras: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
    gpu = extras[name.removeprefix("requirements-")] if "cuda" in name else []
    wanted = [
        one
        for one in map(Requirement, [*PROJECT["project"]["dependencies"], *extras["tracing"], *gpu])
        if not one.marker or one.marker.evaluate()
    ]
    found = {plain(one.name): one for one in wanted}
    if gpu:
        # The other build of ONNX Runtime stands in its place.
        del found["onnxruntime"]
    return found


def plain(name: str) -> str:
    """As pip and the locks write it."""
    return name.lower().replace("_", "-")


def test_the_build_lock_has_what_the_build_asks_for() -> None:
    have = locked("requirements-build")
    for one in map(Requirement, PROJECT["build-system"]["requires"]):
        assert have[one.name.lower()] in one.specifier, one
