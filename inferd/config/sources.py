"""Where values come from: defaults, then a YAML file, then the environment, then flags; the last one wins.

The only reader of the process environment. Whatever is wrong is reported as one SettingsError, with the
name of the setting, the place that set it and what was expected.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

import yaml
from pydantic import ValidationError

from inferd.config import names
from inferd.config.leaves import ENVIRONMENT_PREFIX, Leaf, leaves, sections, shown
from inferd.config.masks import masked
from inferd.config.settings import Settings
from inferd.errors import SettingsError

CONFIG_VARIABLE = ENVIRONMENT_PREFIX + "CONFIG"
CONFIG_FLAG = "--config"

_LONGEST_VALUE_SHOWN = 60
_DEEPEST_NAME = 3


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and where each leaf is from: "default", "file PATH", "environment INFERD_X", "flag --x"."""

    settings: Settings
    origins: Mapping[str, str]

    def value(self, path: str) -> object:
        """Give the value of a leaf by its dotted path."""
        value: object = self.settings
        for part in path.split("."):
            value = getattr(value, part)
        return value


@dataclass(frozen=True, slots=True)
class _Given:
    path: str
    raw: object
    origin: str
    strict: bool = False


def load(
    flags: Mapping[str, object],
    environ: Mapping[str, str] | None = None,
    *,
    models_path: str | None = None,
) -> Loaded:
    """Put the settings together and check them; ``environ`` None means this process's environment.

    ``flags`` has dotted paths as keys, and "config" for the file; a flag that is None was not given.
    ``models_path`` is the command's own argument and wins over everything. Raises SettingsError.
    """
    environ = os.environ if environ is None else environ
    known = {leaf.path: leaf for leaf in leaves()}
    values: dict[str, object] = {}
    origins = dict.fromkeys(known, "default")
    for given in _all_given(known, flags, environ, models_path):
        values[given.path] = _parsed(known[given.path], given)
        origins[given.path] = given.origin
    return Loaded(_settled(values, origins), MappingProxyType(origins))


def unknown_flag(flag: str) -> SettingsError:
    """Explain a flag that the command line does not have, ``--redis-host`` or a misspelt one."""
    origin = f"flag {flag}"
    joined = flag.lstrip("-").replace("-", "_")
    if path := names.not_built_path(joined):
        return _not_built(path, origin)
    by_flag = {leaf.flag: leaf for leaf in leaves()}
    meant = next((leaf.flag for leaf in by_flag.values() if leaf.path == names.elsewhere(joined)), None)
    return _unknown(f"{origin}: no such flag", meant or names.closest(flag, [*by_flag, CONFIG_FLAG], prefix="--"))


def _all_given(
    known: Mapping[str, Leaf],
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    models_path: str | None,
) -> Iterator[_Given]:
    file = flags.get("config") or environ.get(CONFIG_VARIABLE)
    if file:
        yield from _from_file(known, Path(str(file)))
    yield from _from_environment(known, environ)
    yield from _from_flags(known, flags)
    if models_path is not None:
        yield _Given("models.path", models_path, "argument PATH")


# --- the file ------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML without a silent loser: a key that stands twice in a mapping is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands here a second time", key.start_mark
                )
            seen.add(str(key.value))
        mapping: dict[object, object] = super().construct_mapping(node, deep)
        return mapping


def _from_file(known: Mapping[str, Leaf], file: Path) -> Iterator[_Given]:
    origin = f"file {file}"
    tree = _read_yaml(file, origin)
    if tree is None:
        return
    if not isinstance(tree, Mapping):
        raise SettingsError(f"{origin}: expected sections and keys, got {_short(tree)}")
    yield from _walk(known, tree, "", origin)


def _read_yaml(file: Path, origin: str) -> object:
    try:
        tree: object = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as err:
        raise SettingsError(f"{origin}: cannot be read: {err.strerror or type(err).__name__}") from err
    except UnicodeDecodeError as err:
        raise SettingsError(f"{origin}: is not UTF-8 text") from err
    except yaml.MarkedYAMLError as err:
        line = f" in line {err.problem_mark.line + 1}" if err.problem_mark else ""
        raise SettingsError(f"{origin}: is not valid YAML{line}: {err.problem}") from err
    except yaml.YAMLError as err:
        raise SettingsError(f"{origin}: is not valid YAML: {' '.join(str(err).split())}") from err
    except (ValueError, LookupError, AttributeError, RecursionError) as err:
        # PyYAML lets these escape, for a 13th month, for "!!bool maybe", or for a thousand brackets.
        raise SettingsError(f"{origin}: is not valid YAML: a value cannot be read") from err
    return tree


def _walk(known: Mapping[str, Leaf], tree: Mapping[object, object], prefix: str, origin: str) -> Iterator[_Given]:
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if path in known and "." not in str(key):
            yield _Given(path, value, origin, strict=True)
        elif path in sections():
            # A section whose keys are all commented out reads as null.
            if isinstance(value, Mapping):
                yield from _walk(known, value, f"{path}.", origin)
            elif value is not None:
                raise SettingsError(f"{path} ({origin}): expected a section with keys, got {_short(value)}")
        else:
            _refuse_key(known, path, value, origin)


def _refuse_key(known: Mapping[str, Leaf], path: str, value: object, origin: str) -> NoReturn:
    for _ in range(_DEEPEST_NAME):  # an anchor can make a mapping contain itself
        if not isinstance(value, Mapping) or not value:
            break
        if names.not_built(path) is None and names.closest(path, sections()):
            break  # a misspelt section: name it, not the first thing in it
        key, value = next(iter(value.items()))
        path = f"{path}.{key}"
    path = " ".join(path.split())  # a quoted key may have line breaks, the message has none
    if names.not_built(path):
        raise _not_built(path, origin)
    if path in known:
        section, _, leaf = path.rpartition(".")
        raise SettingsError(f"{path} ({origin}): unknown key; write it nested, {section}: {{{leaf}: }}")
    meant = names.elsewhere(path)
    if meant not in known:
        meant = names.closest(path, [*known, *sections()])
    raise _unknown(f"{path} ({origin}): unknown key", meant)


# --- the environment and the flags -------------------------------------------------------------------


def _from_environment(known: Mapping[str, Leaf], environ: Mapping[str, str]) -> Iterator[_Given]:
    by_variable = {leaf.variable: leaf for leaf in known.values()}
    for variable, value in sorted(environ.items()):
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable == CONFIG_VARIABLE:
            continue
        if names.is_service_link(variable, value):
            continue
        origin = f"environment {variable}"
        if variable not in by_variable:
            _refuse_variable(by_variable, variable, origin)
        # Templates write NAME= for a value that they do not have.
        if value:
            yield _Given(by_variable[variable].path, value, origin)


def _refuse_variable(by_variable: Mapping[str, Leaf], variable: str, origin: str) -> NoReturn:
    rest = variable.removeprefix(ENVIRONMENT_PREFIX)
    if path := names.not_built_path(rest.lower()):
        raise _not_built(path, origin)
    setting = names.elsewhere(rest)
    meant = next((leaf.variable for leaf in by_variable.values() if leaf.path == setting), None)
    if meant is None:
        meant = names.closest(variable, [*by_variable, CONFIG_VARIABLE], prefix=ENVIRONMENT_PREFIX)
    raise _unknown(f"{origin}: no such setting", meant)


def _from_flags(known: Mapping[str, Leaf], flags: Mapping[str, object]) -> Iterator[_Given]:
    for path, value in flags.items():
        if value is None or path == "config":
            continue
        if path not in known:
            raise unknown_flag("--" + path.replace(".", "-").replace("_", "-"))
        yield _Given(path, value, f"flag {known[path].flag}", strict=not isinstance(value, str))


# --- checks --------------------------------------------------------------------------------------------


def _parsed(leaf: Leaf, given: _Given) -> object:
    try:
        return leaf.parse(given.raw, strict=given.strict)
    except ValidationError:
        text = f"{leaf.path} ({given.origin}): expected {leaf.expected}, got {_short(given.raw)}"
    raise SettingsError(text)


def _settled(values: Mapping[str, object], origins: Mapping[str, str]) -> Settings:
    tree: dict[str, object] = {}
    for path, value in values.items():
        section, _, name = path.rpartition(".")
        branch = tree.setdefault(section, {}) if section else tree
        assert isinstance(branch, dict)
        branch[name] = value
    try:
        return Settings.model_validate(tree)
    except ValidationError as err:
        wrong = err.errors()[0]["ctx"]
        text = f"{wrong['text']} ({'; '.join(f'{path}: {origins[path]}' for path in wrong['paths'])})"
    raise SettingsError(text)


def _not_built(path: str, origin: str) -> SettingsError:
    # Never the value: these are the settings that carry passwords.
    return SettingsError(f"{path} ({origin}): {names.not_built(path)} is not built yet; remove this setting")


def _unknown(text: str, meant: str | None) -> SettingsError:
    return SettingsError(f"{text}; did you mean {meant}?" if meant else text)


def _short(value: object) -> str:
    text = "nothing" if value is None else shown(value) if isinstance(value, bool) else masked(repr(value))
    return text if len(text) <= _LONGEST_VALUE_SHOWN else text[: _LONGEST_VALUE_SHOWN - 3] + "..."
