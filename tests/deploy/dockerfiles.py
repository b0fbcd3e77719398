"""What a Dockerfile for a server must not do."""

from __future__ import annotations

import re
from collections.abc import Iterator

from . import images

# Formats that run code when they are read.
RUNS_CODE = re.compile(r"\S+\.(?:pkl|pickle|joblib)\b")


def faults(text: str) -> Iterator[str]:
    """Complaints about one file."""
    lines = re.sub(r"\\\n\s*", " ", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
    stages = re.split(r"^(?=FROM )", lines, flags=re.M)[1:]
    for base in images.of_dockerfile(text):
        yield from images.faults(base)
    if re.search(r"pip3? install .*(?:-e|--editable)\b", lines):
        yield "an editable install points to sources that the next stage does not have"
    if re.search(r"pip3? install(?!.*--require-hashes).* -r ", lines):
        yield "what is installed is whatever has these names today"
    if re.search(r"^FROM nvidia/cuda.*\n(?:.*\n)*?.*install .*python\d.\d .*pip", lines, re.M):
        yield "pip is that of another Python than the one that is installed beside it"
    last = stages[-1]
    user = re.findall(r"^USER (\S+)", last, re.M)
    if not user or user[-1].split(":")[0] in ("0", "root"):
        yield "its process is root"
    elif not user[-1].split(":")[0].isdecimal():
        yield "a cluster cannot see that its user is not root"
    if re.search(r"^HEALTHCHECK.*\b(?:curl|wget)\b", last, re.M):
        yield "health needs a client that the image would not need"
    if not re.search(r"^STOPSIGNAL ", last, re.M):
        yield "how it stops is left to the base"
    if RUNS_CODE.search(lines):
        yield "its model is a program that runs when it is read"
