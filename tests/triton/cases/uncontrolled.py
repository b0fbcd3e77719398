"""Servers that were started without --model-control-mode=explicit: what they serve is what the repository has."""

from __future__ import annotations

from .case import Case, Difference
from .control import CONFIG, FILE, SENT, ask, file, index, load, unload

MODEL = "scale"
NOT_EXPLICIT = Difference(
    what="RepositoryModelLoad and RepositoryModelUnload without `--model-control-mode=explicit`",
    triton="UNAVAILABLE",
    inferd="PERMISSION_DENIED",
    why="UNAVAILABLE is tried again, and elsewhere. No retry helps: whoever runs the server decides.",
)

CASES = (
    Case("what is here", (index(),)),
    Case("a load", (load(MODEL),), NOT_EXPLICIT),
    Case("a load of what is not here", (load("nothing"),), NOT_EXPLICIT),
    Case("a load of what is sent", (load(SENT, config=CONFIG, **file(1, FILE)),), NOT_EXPLICIT),
    Case("an unload", (unload(MODEL),), NOT_EXPLICIT),
    Case("an unload of what is not here", (unload("nothing"),), NOT_EXPLICIT),
    Case("a request afterwards", (ask(MODEL),)),
)
