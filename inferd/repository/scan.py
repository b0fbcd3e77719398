"""A path to what can be served from it: which models, which versions of each, which file to open.

Looks, and opens nothing but config.pbtxt and the labels that it names. Whether a file holds a model is for the
session to find out.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from inferd.errors import RepositoryError
from inferd.health import RESERVED_NAMES
from inferd.proto.model_config_pb2 import ModelConfig
from inferd.repository.config import MODEL_FILE, ModelDecl, declare, parse, selected
from inferd.repository.content import content_of
from inferd.repository.faults import CONFIG_FILE
from inferd.repository.labels import read_labels
from inferd.repository.warmup import WARMUP_FOLDER, WarmupSample

NAME_PATTERN = r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}"
NAME = re.compile(NAME_PATTERN)
VERSION = re.compile("[1-9][0-9]{0,17}")  # fits the signed 64 bits that version_policy has for it

LAYOUT = f"expected <repository>/<model>/<version>/{MODEL_FILE}, for example"
LARGEST_CONFIG_BYTES = 1 << 20

# Folders of a model that are no versions and yet in their place: data for config.pbtxt to name.
NOT_VERSIONS = frozenset({WARMUP_FOLDER, "initial_state"})

# A volume's own folder, found at the root of many a mounted disk.
NOT_MODELS = frozenset({"lost+found"})


@dataclass(frozen=True, slots=True)
class VersionDir:
    """One version on disk: its folder, with links resolved, and the file in it to open.

    `content` differs once anything that a load reads was written anew.
    """

    version: int
    path: Path
    model_path: Path
    content: str = field(default="", compare=False)


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


@dataclass(frozen=True, slots=True)
class Reader:
    """How a path is looked at: `path` is a model repository or a single .onnx file.

    Links in a repository are refused unless `follow_links` says that they may lead anywhere inside of it. With
    `may_be_empty` a repository without a model is none too few.
    """

    path: Path
    follow_links: bool = False
    may_be_empty: bool = False

    def scan(self) -> Repository:
        """Say what can be served.

        Raises RepositoryError when there is no model at all, or when the single file cannot be served.
        """
        try:
            if self.path.is_dir():
                return self._scan_folder(self.path.resolve())
            if self.path.is_file():
                return Repository(models=(_single(self.path),), broken=())
        except OSError as exc:
            raise RepositoryError(_os_reason(exc)) from exc
        raise RepositoryError(f"{self.path}: no such file or folder; give a model repository or an .onnx file")

    def find(self, name: str, config: ModelConfig | None = None) -> ModelDir | BrokenModel | None:
        """Look at one model; `config` stands in for its config.pbtxt. None if there is no folder of that name."""
        if not self.path.is_dir():
            found = [model for model in self.scan().models if model.decl.name == name]
            return found[0] if found else None
        root = self.path.resolve()
        if not NAME.fullmatch(name) or not _is_folder(root / name):
            return None
        return self._model(root, name, config)

    def contents(self) -> dict[str, str]:
        """What there is of each model, as a text that changes with it. Raises RepositoryError."""
        found = self.scan()
        listed = {one.decl.name: " ".join(version.content for version in one.versions) for one in found.models}
        return listed | {one.name: one.reason for one in found.broken}

    def names(self) -> list[str]:
        """The names of all model folders, served or not. Raises RepositoryError."""
        if not self.path.is_dir():
            return [model.decl.name for model in self.scan().models]
        try:
            return [name for name in _folders(self.path.resolve()) if NAME.fullmatch(name)]
        except OSError as exc:
            raise RepositoryError(_os_reason(exc)) from exc

    def _scan_folder(self, root: Path) -> Repository:
        folders = _folders(root)
        if folders or not self.may_be_empty:
            _check_is_repository(root, folders)
        looked_at = [self._model(root, name, None) for name in folders]
        return Repository(
            tuple(one for one in looked_at if isinstance(one, ModelDir)),
            tuple(one for one in looked_at if isinstance(one, BrokenModel)),
        )

    def _model(self, root: Path, name: str, config: ModelConfig | None) -> ModelDir | BrokenModel:
        try:
            return _model(Root(root, self.follow_links), name, config)
        except RepositoryError as exc:
            return BrokenModel(_printable(name), str(exc))
        except OSError as exc:
            return BrokenModel(_printable(name), _os_reason(exc))


@dataclass(frozen=True, slots=True)
class Root:
    """A repository's folder, with links to it resolved, and whether links in it are followed."""

    path: Path
    follow_links: bool

    def inside(self, path: Path) -> Path:
        """The path with links resolved, which lead nowhere out of the repository. Raises RepositoryError."""
        try:
            real = path.resolve(strict=True)
        except FileNotFoundError as exc:
            raise RepositoryError(f"{path} leads nowhere: {exc.filename} does not exist") from None
        except RuntimeError:  # Python before 3.13, for links in a circle
            raise RepositoryError(f"{path} is a link in a circle") from None
        if not real.is_relative_to(self.path):
            raise RepositoryError(f"{path} leads out of the repository, to {real}; put a copy inside {self.path}")
        if path.is_symlink() and not self.follow_links:
            raise RepositoryError(
                f"{path} is a link; put what it leads to in its place, or have links inside the repository followed "
                "with --models-follow-links true"
            )
        return real


def digest(path: Path) -> str:
    """SHA-256 of a file in lower-case hex, read piece by piece. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folders(root: Path) -> list[str]:
    entries = sorted(entry.name for entry in os.scandir(root) if not entry.name.startswith("."))
    return [name for name in entries if _is_folder(root / name) and name not in NOT_MODELS]


def _check_is_repository(root: Path, folders: list[str]) -> None:
    """Tell the three folders that are often given in a repository's place from an empty repository."""
    entries = sorted(entry.name for entry in os.scandir(root) if not entry.name.startswith("."))
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


def _model(root: Root, name: str, config: ModelConfig | None) -> ModelDir:
    folder = root.path / name
    if not NAME.fullmatch(name):
        raise RepositoryError(f"{name!r} is not a model name; one matches {NAME_PATTERN}: rename the folder")
    if name in RESERVED_NAMES:
        raise RepositoryError(f"{name!r} is a name of the server's own health checks: rename the folder")
    home = root.inside(folder)
    decl = _declared(home, root, name) if config is None else declare(config, name)
    decl = replace(decl, warmup=tuple(_found(sample, home, root) for sample in decl.warmup))
    decl = replace(decl, labels=read_labels(home, decl.outputs))
    found, folder_warnings = _versions(home)
    if not found:
        raise RepositoryError(f"{folder} has no version: {LAYOUT} {folder / '1' / MODEL_FILE}")
    chosen, policy_warnings = selected(found, decl.config)
    if not chosen:
        there = ", ".join(map(str, found))
        raise RepositoryError(f"{CONFIG_FILE}: version_policy selects none of the versions on disk ({there})")
    # What all versions share: config.pbtxt, labels, data for the warm-up.
    beside = content_of(str(config), *(home / entry for entry in sorted(os.listdir(home)) if not entry.isdecimal()))
    versions = tuple(_version(home, version, decl.model_file, root, beside) for version in chosen)
    return ModelDir(replace(decl, warnings=(*decl.warnings, *policy_warnings, *folder_warnings)), versions)


def _declared(home: Path, root: Root, name: str) -> ModelDecl:
    path = home / CONFIG_FILE
    if not os.path.lexists(path):
        return ModelDecl(name)
    real = root.inside(path)
    if not real.is_file():
        raise RepositoryError(f"{path} is not a regular file")
    if real.stat().st_size > LARGEST_CONFIG_BYTES:
        raise RepositoryError(f"{CONFIG_FILE} is larger than {LARGEST_CONFIG_BYTES} bytes")
    try:
        text = real.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as exc:
        raise RepositoryError(f"{CONFIG_FILE} is not UTF-8 text: byte {exc.start} is wrong") from None
    return declare(parse(text), name)


def _found(sample: WarmupSample, home: Path, root: Root) -> WarmupSample:
    """The sample with its files where they are on disk."""
    inputs = dict(sample.inputs)
    for name, tensor in sample.inputs.items():
        if tensor.file is not None:
            path = root.inside(home / WARMUP_FOLDER / tensor.file)
            if not path.is_file():
                raise RepositoryError(f"{path} is not a regular file")
            inputs[name] = replace(tensor, file=path)
    return replace(sample, inputs=MappingProxyType(inputs))


def _versions(home: Path) -> tuple[list[int], list[str]]:
    found: list[int] = []
    warnings: list[str] = []
    for name in sorted(entry.name for entry in os.scandir(home) if not entry.name.startswith(".")):
        is_folder = _is_folder(home / name)
        if VERSION.fullmatch(name) and is_folder:
            found.append(int(name))
        elif VERSION.fullmatch(name):
            warnings.append(f"{name!r} is a file; a version is a folder")
        elif is_folder and name not in NOT_VERSIONS:
            warnings.append(f"folder {name!r} is not a version; those are 1, 2, 3 ... without leading zeros")
    return sorted(found), warnings


def _version(home: Path, version: int, model_file: str, root: Root, beside: str) -> VersionDir:
    folder = root.inside(home / str(version))
    model_path = folder / model_file
    if not os.path.lexists(model_path):
        others = sorted(_printable(other.name) for other in folder.glob("*.onnx"))
        hint = f"; it has {', '.join(others)}: rename it, or set default_model_filename" if others else ""
        raise RepositoryError(f"version {version} has no {model_file}{hint}")
    if root.inside(model_path).is_dir():
        # Triton's layout for weights in many files: the folder has the model file's name.
        model_path = model_path / MODEL_FILE
    _check_model_file(root.inside(model_path))
    _check_beside(folder, root)
    return VersionDir(version, folder, model_path, content_of(beside, folder))


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
    return ModelDir(decl, (VersionDir(version, folder, path, content_of(path)),))


def _valid_name(stem: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_.\-]+", "_", stem)
    return (name if NAME.match(name) else f"_{name}")[:128]


def _check_model_file(path: Path) -> None:
    if not path.is_file():
        raise RepositoryError(f"{path} is not a regular file")
    if path.stat().st_size == 0:
        raise RepositoryError(f"{path} is an empty file")


def _check_beside(folder: Path, root: Root) -> None:
    """Weights in files of their own may be links as little as the model file may."""
    for where, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if os.path.islink(os.path.join(where, name)):
                root.inside(Path(where, name))


def _printable(name: str) -> str:
    """A file name that can be logged: bytes that are not UTF-8 become escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _os_reason(exc: OSError) -> str:
    return f"{_printable(str(exc.filename))}: {exc.strerror}"
