"""A path to what can be served from it: which models, which versions of each, which file to open.

Looks, and opens nothing but config.pbtxt. Whether a file holds a model is for the session to find out.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from inferd.errors import RepositoryError
from inferd.health import RESERVED_NAMES
from inferd.repository.config import CONFIG_FILE, MODEL_FILE, ModelDecl, declare, parse, selected

NAME_PATTERN = r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}"
NAME = re.compile(NAME_PATTERN)
VERSION = re.compile("[1-9][0-9]{0,17}")  # fits the signed 64 bits that version_policy has for it

LAYOUT = f"expected <repository>/<model>/<version>/{MODEL_FILE}, for example"
LARGEST_CONFIG_BYTES = 1 << 20

# A volume's own folder, found at the root of many a mounted disk.
NOT_MODELS = frozenset({"lost+found"})


@dataclass(frozen=True, slots=True)
class VersionDir:
    """One version on disk: its folder, with links resolved, and the file in it to open."""

    version: int
    path: Path
    model_path: Path


@dataclass(frozen=True, slots=True)
class ModelDir:
    """One model on disk and the versions of it to serve, rising; there is at least one."""

    decl: ModelDecl
    versions: tuple[VersionDir, ...]


@dataclass(frozen=True, slots=True)
class BrokenModel:
    """A model that cannot be served, and what to do about it."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Repository:
    """What a path holds, each by name; a broken model does not hide the others."""

    models: tuple[ModelDir, ...]
    broken: tuple[BrokenModel, ...]


def scan(path: Path) -> Repository:
    """Look at a model repository, or at a single .onnx file, and say what can be served from it.

    Raises RepositoryError when there is no model at all, or when the single file cannot be served.
    """
    try:
        if path.is_dir():
            return _scan_folder(path.resolve())
        if path.is_file():
            return Repository(models=(_single(path),), broken=())
    except OSError as exc:
        raise RepositoryError(_os_reason(exc)) from exc
    raise RepositoryError(f"{path}: no such file or folder; give a model repository or an .onnx file")


def digest(path: Path) -> str:
    """SHA-256 of a file in lower-case hex, read piece by piece. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _scan_folder(root: Path) -> Repository:
    entries = sorted(entry.name for entry in os.scandir(root) if not entry.name.startswith("."))
    folders = [name for name in entries if _is_folder(root / name) and name not in NOT_MODELS]
    _check_is_repository(root, entries, folders)
    models: list[ModelDir] = []
    broken: list[BrokenModel] = []
    for name in folders:
        try:
            models.append(_model(root / name, root))
        except RepositoryError as exc:
            broken.append(BrokenModel(_printable(name), str(exc)))
        except OSError as exc:
            broken.append(BrokenModel(_printable(name), _os_reason(exc)))
    return Repository(tuple(models), tuple(broken))


def _check_is_repository(root: Path, entries: list[str], folders: list[str]) -> None:
    """Tell the three folders that are often given in a repository's place from an empty repository."""
    example = root / "my_model" / "1" / MODEL_FILE
    files = [name for name in entries if name not in folders]
    versions = [name for name in folders if VERSION.fullmatch(name)]
    if CONFIG_FILE in files or any(os.path.exists(root / name / MODEL_FILE) for name in versions):
        raise RepositoryError(f"{root} is the folder of one model; give the folder it lies in, {root.parent}")
    stray = next((name for name in files if name.endswith(".onnx")), None)
    if stray is not None and not folders:
        raise RepositoryError(
            f"{root} holds {_printable(stray)} but no model folder; give that file itself, or move it: "
            f"{LAYOUT} {example}"
        )
    if not folders:
        raise RepositoryError(f"{root} has no model folder: {LAYOUT} {example}")


def _is_folder(path: Path) -> bool:
    # A link that leads nowhere counts: its owner meant a model by it and must hear of it.
    return os.path.isdir(path) or (os.path.islink(path) and not os.path.exists(path))


def _model(folder: Path, root: Path) -> ModelDir:
    name = folder.name
    if not NAME.fullmatch(name):
        raise RepositoryError(f"{name!r} is not a model name; one matches {NAME_PATTERN}: rename the folder")
    if name in RESERVED_NAMES:
        raise RepositoryError(f"{name!r} is a name of the server's own health checks: rename the folder")
    home = _inside(folder, root)
    decl = _declared(home, root, name)
    found, folder_warnings = _versions(home)
    if not found:
        raise RepositoryError(f"{folder} has no version: {LAYOUT} {folder / '1' / MODEL_FILE}")
    chosen, policy_warnings = selected(found, decl.config)
    if not chosen:
        there = ", ".join(map(str, found))
        raise RepositoryError(f"{CONFIG_FILE}: version_policy selects none of the versions on disk ({there})")
    versions = tuple(_version(home, version, decl.model_file, root) for version in chosen)
    return ModelDir(replace(decl, warnings=(*decl.warnings, *policy_warnings, *folder_warnings)), versions)


def _declared(home: Path, root: Path, name: str) -> ModelDecl:
    path = home / CONFIG_FILE
    if not os.path.lexists(path):
        return ModelDecl(name)
    real = _inside(path, root)
    if not real.is_file():
        raise RepositoryError(f"{path} is not a regular file")
    if real.stat().st_size > LARGEST_CONFIG_BYTES:
        raise RepositoryError(f"{CONFIG_FILE} is larger than {LARGEST_CONFIG_BYTES} bytes")
    try:
        text = real.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as exc:
        raise RepositoryError(f"{CONFIG_FILE} is not UTF-8 text: byte {exc.start} is wrong") from None
    return declare(parse(text), name)


def _versions(home: Path) -> tuple[list[int], list[str]]:
    found: list[int] = []
    warnings: list[str] = []
    for name in sorted(entry.name for entry in os.scandir(home) if not entry.name.startswith(".")):
        is_folder = _is_folder(home / name)
        if VERSION.fullmatch(name) and is_folder:
            found.append(int(name))
        elif VERSION.fullmatch(name):
            warnings.append(f"{name!r} is a file; a version is a folder")
        elif is_folder:
            warnings.append(f"folder {name!r} is not a version; those are 1, 2, 3 ... without leading zeros")
    return sorted(found), warnings


def _version(home: Path, version: int, model_file: str, root: Path) -> VersionDir:
    folder = _inside(home / str(version), root)
    model_path = folder / model_file
    if not os.path.lexists(model_path):
        others = sorted(_printable(other.name) for other in folder.glob("*.onnx"))
        hint = f"; it has {', '.join(others)}: rename it, or set default_model_filename" if others else ""
        raise RepositoryError(f"version {version} has no {model_file}{hint}")
    if _inside(model_path, root).is_dir():
        # Triton's layout for weights in many files: the folder has the model file's name.
        model_path = model_path / MODEL_FILE
    _check_model_file(_inside(model_path, root))
    return VersionDir(version, folder, model_path)


def _single(path: Path) -> ModelDir:
    if path.suffix != ".onnx":
        raise RepositoryError(f"{path} is not an .onnx file; give one, or a model repository")
    # Only the folder is resolved: weights beside a linked model file are found beside the link.
    folder = path.parent.resolve()
    path = folder / path.name
    _check_model_file(path)
    name, version = _valid_name(path.stem), 1
    warnings: tuple[str, ...] = ()
    if path.name == MODEL_FILE and VERSION.fullmatch(folder.name) and NAME.fullmatch(folder.parent.name):
        name, version = folder.parent.name, int(folder.name)
        if (folder.parent / CONFIG_FILE).exists():
            repository = folder.parent.parent
            warnings = (f"{CONFIG_FILE} is not read for a single file; serve {repository} to have it read",)
    decl = ModelDecl(name, model_file=path.name, warnings=warnings)
    return ModelDir(decl, (VersionDir(version, folder, path),))


def _valid_name(stem: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_.\-]+", "_", stem)
    return (name if NAME.match(name) else f"_{name}")[:128]


def _check_model_file(path: Path) -> None:
    if not path.is_file():
        raise RepositoryError(f"{path} is not a regular file")
    if path.stat().st_size == 0:
        raise RepositoryError(f"{path} is an empty file")


def _inside(path: Path, root: Path) -> Path:
    """The path with links resolved. Links may lead anywhere in the repository, and nowhere else."""
    try:
        real = path.resolve(strict=True)
    except FileNotFoundError as exc:
        raise RepositoryError(f"{path} leads nowhere: {exc.filename} does not exist") from None
    except RuntimeError:  # Python before 3.13, for links in a circle
        raise RepositoryError(f"{path} is a link in a circle") from None
    if not real.is_relative_to(root):
        raise RepositoryError(f"{path} leads out of the repository, to {real}; put a copy inside {root}")
    return real


def _printable(name: str) -> str:
    """A file name that can be logged: bytes that are not UTF-8 become escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _os_reason(exc: OSError) -> str:
    return f"{_printable(str(exc.filename))}: {exc.strerror}"
