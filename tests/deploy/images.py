"""What the reference of an image must not be, and which references the shipped files have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "deploy" / "compose" / "compose.yaml"
# They are built here, so whoever pushes them has the digest.
OURS = ("inferd", "inferd-cuda", "inferd-models")
# Nobody whom we could ask has the digest of this one: its variant with a shell is rarely used.
BY_TAG_ONLY = {"fluent/fluent-bit"}
# All parts of a version, or a day. PostgreSQL's have two parts.
EXACT = re.compile(r"v?\d+\.\d+\.\d+([-.][\w.]+)*|[\w.-]*\b20\d{6}\b[\w.-]*")
TWO_PARTS = {"postgres": re.compile(r"\d+\.\d+(-\w+)?")}
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# Nobody mends them any more.
GONE = re.compile(r"^python:3\.[0-9](\D|$)|ubuntu(:|)(18|20)\.04|debian:(9|10|11|stretch|buster|bullseye)\b")


def faults(reference: str) -> Iterator[str]:
    """Why one image is not always the same, or not what to run."""
    named, _, digest = reference.partition("@")
    name, _, tag = named.removeprefix("docker.io/").removeprefix("library/").rpartition(":")
    if not name:
        name, tag = tag, ""
    exact = TWO_PARTS.get(name, EXACT)
    if not exact.fullmatch(tag):
        yield f"{reference} is not one version"
    if name.rpartition("/")[2] not in OURS and name not in BY_TAG_ONLY and not DIGEST.fullmatch(digest):
        yield f"{reference} may be another image tomorrow"
    if GONE.search(named):
        yield f"{reference} is mended by nobody any more"
    if "-devel-" in tag:
        yield f"{reference} has compilers"


def of_dockerfile(text: str) -> list[str]:
    """The bases of a Dockerfile's stages, those that are arguments or stages themselves aside."""
    arguments = re.findall(r"^ARG \w+=(\S*[:/]\S*)$", text, re.M)
    bases = re.findall(r"^FROM (\S+)", text, re.M)
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", text, re.M))
    return [*arguments, *(one for one in bases if "$" not in one and one not in stages)]


def shipped() -> dict[str, list[str]]:
    """The references of all images by the file that names them."""
    found = {name: of_dockerfile((ROOT / name).read_text()) for name in ("Dockerfile", "Dockerfile.cuda")}
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    found["compose.yaml"] = [one["image"] for one in services.values()]
    for path in (ROOT / "deploy").rglob("*.yaml"):
        if "templates" not in path.parts and path != COMPOSE:
            text = path.read_text()
            found[str(path.relative_to(ROOT))] = re.findall(r"^\s*(?:- )?image: ([^\s{#]+:\S+)$", text, re.M) + [
                one.strip('"') for one in re.findall(r"reference: (\"[^\"]+\")", text)
            ]
    return {name: images for name, images in found.items() if images}
