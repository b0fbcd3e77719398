"""The settings as a flat list of leaves, which the command line, the loader and the docs page share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, cast, get_args, get_origin

from pydantic import TypeAdapter

from inferd.config.kinds import Expects, Section
from inferd.config.masks import masked
from inferd.config.settings import Settings

ENVIRONMENT_PREFIX = "INFERD_"

_NOUNS: dict[object, str] = {int: "integer", float: "number", str: "text"}


@dataclass(frozen=True, slots=True)
class Leaf:
    """One setting: its dotted path, the annotation that validates it, its default and its meaning."""

    path: str
    type: object
    default: object
    description: str

    @property
    def variable(self) -> str:
        """The environment variable of this setting."""
        return ENVIRONMENT_PREFIX + self.path.replace(".", "_").upper()

    @property
    def flag(self) -> str:
        """The command line flag of this setting."""
        return "--" + self.path.replace(".", "-").replace("_", "-")

    @property
    def section(self) -> str:
        """The part of the path before the last dot; empty for a setting that stands alone."""
        return self.path.rpartition(".")[0]

    @property
    def expected(self) -> str:
        """What a value must be, in words."""
        return _in_words(self.type)

    def parse(self, raw: object, *, strict: bool) -> object:
        """Turn a raw value into the setting's own type.

        Strict takes only values that already have the type, as YAML gives them; otherwise text is converted.
        Raises pydantic's ValidationError.
        """
        adapter: TypeAdapter[object] = TypeAdapter(cast(Any, self.type))
        return adapter.validate_python(raw, strict=strict)


def leaves() -> Iterator[Leaf]:
    """Yield every setting, in the order in which they are declared."""
    yield from _leaves_of(Settings, "")


def sections() -> dict[str, str]:
    """Give each section's name and its one-sentence meaning, in the order in which they are declared."""
    return {
        name: (field.annotation.__doc__ or "").strip()
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
    }


def shown(value: object) -> str:
    """Write a value the way one would write it in the YAML file, but for credentials."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "true" if value else "false"
    return masked(str(value))


def _leaves_of(section: type[Section], prefix: str) -> Iterator[Leaf]:
    for name, field in section.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield from _leaves_of(annotation, f"{prefix}{name}.")
        else:
            yield Leaf(prefix + name, field.rebuild_annotation(), field.default, field.description or "")


def _in_words(annotation: object) -> str:
    notes: list[object] = []
    while get_origin(annotation) is Annotated or NoneType in get_args(annotation):
        if get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            notes += more
        else:
            (annotation,) = (option for option in get_args(annotation) if option is not NoneType)
    for note in notes:
        if isinstance(note, Expects):
            return note.text
    if annotation is bool:
        return "true or false"
    if get_origin(annotation) is Literal:
        *others, last = map(str, get_args(annotation))
        return f"{', '.join(others)} or {last}" if others else last
    noun = "path" if annotation is Path else _NOUNS[annotation]
    return " ".join([noun, *_range_in_words(notes)])


def _range_in_words(notes: list[object]) -> Iterator[str]:
    bounds = {
        name: value for name in ("ge", "gt", "le") for note in notes if (value := getattr(note, name, None)) is not None
    }
    if "ge" in bounds and "le" in bounds:
        yield f"from {bounds['ge']} to {bounds['le']}"
        return
    for name, words in (("ge", "of at least"), ("gt", "above"), ("le", "up to")):
        if name in bounds:
            yield f"{words} {bounds[name]}"
