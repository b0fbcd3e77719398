"""Imports point one way. A room may import from rooms before it, never from its own line's neighbours or later."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "inferd"

# From the ground up; rooms of one line do not know each other.
LAYERS = (
    {"errors", "version", "cgroup", "near", "filestate"},
    {"_native", "proto", "config", "cpus", "health", "device", "pace", "memory", "offloop"},
    {"repository", "telemetry", "session", "tls", "auth", "admission"},
    {"synthetic", "trial"},
    {"batchable", "completing", "warmup", "engines"},
    {"loading", "instance"},
    {"runner", "inline", "queueing"},
    {"models"},
    {"lifecycle", "samples", "banner"},
    {"watch"},
    {"rpc", "http"},
    {"app", "check", "exposure", "bench", "plan"},
    {"cli"},
    {"__main__"},
)
ONLY_IMPORTERS = {
    "onnxruntime": {"session"},
    "cupy": {"device"},
    "pynvml": {"telemetry"},
    "uvloop": {"app"},
    "starlette": {"http"},
    "uvicorn": {"http"},
    "watchfiles": {"watch"},
    "opentelemetry": {"telemetry"},
    "matplotlib": {"bench"},
    "psutil": {"bench"},
    "jwt": {"auth"},
}
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "misc"}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if not path.name.endswith(("_pb2.py", "_pb2_grpc.py")))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "inferd":
                yield from (f"inferd.{alias.name}" for alias in node.names)
            else:
                yield node.module


def height(name: str) -> int:
    found = [index for index, layer in enumerate(LAYERS) if name in layer]
    assert found, f"inferd.{name} has no place in LAYERS: decide what it may import"
    return found[0]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_rooms_below_it(path: Path) -> None:
    here = room(path)
    if here == "__init__":
        return
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "inferd" or len(parts) == 1 or parts[1] == here:
            continue
        assert height(parts[1]) < height(here), f"inferd.{here} must not import inferd.{parts[1]}"


@pytest.mark.parametrize(("library", "rooms"), ONLY_IMPORTERS.items())
def test_a_library_with_one_owner_is_imported_by_nobody_else(library: str, rooms: set[str]) -> None:
    importers = {room(path) for path in modules() if any(name.split(".")[0] == library for name in imported(path))}
    assert importers <= rooms


def test_only_config_reads_the_environment() -> None:
    readers = {room(path) for path in modules() if "os.environ" in path.read_text() or "getenv" in path.read_text()}
    assert readers <= {"config"}


def test_no_module_is_a_drawer() -> None:
    assert not [path for path in modules() if path.stem in FORBIDDEN_NAMES]


def test_no_file_is_two_ideas() -> None:
    sources = [*modules(), *(PACKAGE.parent / "ext").glob("*.p*")]
    long = {path.name: lines for path in sources if (lines := len(path.read_text().splitlines())) > 420}
    assert not long
