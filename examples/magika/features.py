"""What the Magika model is shown of a file, and what its scores mean. No files are opened here and nothing is sent.

A file is judged from its first and last ``block_size`` bytes. Leading whitespace is dropped from the first
block and trailing whitespace from the last; of what remains, ``beg_size`` bytes from the front and
``end_size`` bytes from the back become one row of integers, filled up with ``padding_token`` on the side
that faces the middle of the file. Content too short to say anything is text if it is UTF-8, else unknown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]
Scores = NDArray[np.float32]

# Labels that are given without asking the model; all of them are in the table of content types.
EMPTY, TEXT, UNKNOWN, DIRECTORY, SYMLINK, UNDEFINED = (
    "empty",
    "txt",
    "unknown",
    "directory",
    "symlink",
    "undefined",
)


class Mode(StrEnum):
    """How sure the model must be before its label is believed."""

    HIGH_CONFIDENCE = "high-confidence"
    MEDIUM_CONFIDENCE = "medium-confidence"
    BEST_GUESS = "best-guess"


class BadConfig(ValueError):
    """The model's configuration asks for something that this code does not do, or is not one at all."""


@dataclass(frozen=True, slots=True)
class ContentType:
    """What is known of a label: the words for people, and whether such files are text."""

    description: str
    is_text: bool


@dataclass(frozen=True, slots=True)
class Config:
    """The constants that were fixed when the model was trained; sizes are in bytes, scores in 0..1."""

    beg_size: int
    end_size: int
    block_size: int
    padding_token: int
    min_meaningful_bytes: int
    labels: tuple[str, ...]
    thresholds: Mapping[str, float]
    default_threshold: float
    overwrite: Mapping[str, str]
    types: Mapping[str, ContentType]

    def __post_init__(self) -> None:
        """Refuse what would give wrong answers rather than errors."""
        if not (0 < self.min_meaningful_bytes <= self.beg_size <= self.block_size):
            raise BadConfig("the front of a row must hold min_file_size_for_dl bytes and fit in a block")
        if not 0 < self.end_size <= self.block_size:
            raise BadConfig("the back of a row must not be empty and must fit in a block")
        if 0 <= self.padding_token < 256:
            raise BadConfig("the padding token must not be a byte")
        given = {EMPTY, TEXT, UNKNOWN, DIRECTORY, SYMLINK, UNDEFINED, *self.labels, *self.overwrite.values()}
        if missing := given - set(self.types):
            raise BadConfig(f"the table of content types lacks {', '.join(sorted(missing))}")

    @property
    def row_size(self) -> int:
        """How many integers the model takes for one file."""
        return self.beg_size + self.end_size


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer for one file. ``model_label`` is ``undefined`` where the model was not asked."""

    label: str
    description: str
    score: float
    model_label: str = UNDEFINED


def parse_config(model_json: str, types_json: str) -> Config:
    """Build a Config from the two JSON documents that come with the model.

    Raises:
        BadConfig: a key is missing, or the model wants bytes from the middle of files or from fixed offsets.
    """
    try:
        model: dict[str, Any] = json.loads(model_json)
        types: dict[str, dict[str, Any]] = json.loads(types_json)
        if model["mid_size"] or model["use_inputs_at_offsets"]:
            raise BadConfig("only models that look at the front and the back of a file are understood")
        return Config(
            beg_size=model["beg_size"],
            end_size=model["end_size"],
            block_size=model["block_size"],
            padding_token=model["padding_token"],
            min_meaningful_bytes=model["min_file_size_for_dl"],
            labels=tuple(model["target_labels_space"]),
            thresholds=model["thresholds"],
            default_threshold=model["medium_confidence_threshold"],
            overwrite=model["overwrite_map"],
            types={
                label: ContentType(label if about["description"] is None else about["description"], about["is_text"])
                for label, about in types.items()
            },
        )
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as err:
        raise BadConfig(f"not a configuration of Magika: {type(err).__name__}: {err}") from err


def settled(label: str, config: Config) -> Verdict:
    """Answer with a label that needs no model: such answers are certain by definition."""
    return Verdict(label, config.types[label].description, 1.0)


def examine(size_bytes: int, first_block: bytes, last_block: bytes, config: Config) -> Verdict | Tokens:
    """Judge content that is too short for the model; turn any other into the model's input row.

    The blocks are the first and the last ``block_size`` bytes, which overlap or coincide in a small file.
    """
    if size_bytes == 0:
        return settled(EMPTY, config)
    if size_bytes >= config.min_meaningful_bytes:
        row = tokens(first_block, last_block, config)
        # A padded front is all there is of the content once leading whitespace is gone.
        if row[config.min_meaningful_bytes - 1] != config.padding_token:
            return row
    try:
        first_block.decode("utf-8")
    except UnicodeDecodeError:
        return settled(UNKNOWN, config)
    return settled(TEXT, config)


def tokens(first_block: bytes, last_block: bytes, config: Config) -> Tokens:
    """Lay out one input row of the model: the stripped front, padding, the stripped back."""
    row = np.full(config.row_size, config.padding_token, dtype=np.int32)
    front = first_block.lstrip()[: config.beg_size]
    back = last_block.rstrip()[-config.end_size :]
    row[: len(front)] = np.frombuffer(front, dtype=np.uint8)
    row[config.row_size - len(back) :] = np.frombuffer(back, dtype=np.uint8)
    return row


def decide(scores: Scores, config: Config, mode: Mode = Mode.HIGH_CONFIDENCE) -> Verdict:
    """Turn the model's scores for one file into an answer; a label that is not believed becomes a generic one.

    Raises:
        ValueError: there is not exactly one score per label, or the best score is not a number.
    """
    if scores.shape != (len(config.labels),):
        raise ValueError(f"expected {len(config.labels)} scores for a file, got shape {list(scores.shape)}")
    best = int(scores.argmax())
    score = float(scores[best])
    if score != score:
        raise ValueError("the model's scores are not numbers")
    model_label = config.labels[best]
    # The threshold belongs to what the model said, the text/binary fallback to what that is renamed to.
    label = config.overwrite.get(model_label, model_label)
    if score < _threshold(model_label, config, mode):
        label = TEXT if config.types[label].is_text else UNKNOWN
    return Verdict(label, config.types[label].description, score, model_label)


def _threshold(model_label: str, config: Config, mode: Mode) -> float:
    if mode is Mode.BEST_GUESS:
        return float("-inf")
    if mode is Mode.MEDIUM_CONFIDENCE:
        return config.default_threshold
    return config.thresholds.get(model_label, config.default_threshold)
