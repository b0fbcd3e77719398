"""Whether answers are right: compared with outputs from a file, or with what the server says when it is left alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic_ns
from typing import TYPE_CHECKING, Final

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from inferd.bench import arrays
from inferd.bench.result import Answers, Tensor
from inferd.bench.shapes import Layout
from inferd.bench.tensors import Array, outputs
from inferd.errors import StartError

if TYPE_CHECKING:
    from inferd._native.tally import Slice
    from inferd.bench.generator import Generator

# A batch's size may move the last bits of an answer; more variants than this of one request are judged again each time.
MAX_VARIANTS: Final = 32
# Answers are judged between slices. Longer, and the edges of the figures would drift from what they are edges of.
JUDGING_NS: Final = 20_000_000

Outputs = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Truth:
    """The outputs that each distinct request must have; floats may be off by `atol` + `rtol` times their value."""

    expected: Sequence[Outputs]
    rtol: float = 1e-3
    atol: float = 1e-5

    def wrong(self, request: int, answer: bytes) -> str | None:
        """What is wrong with a serialized answer to request number `request`; None if nothing is."""
        try:
            found = outputs(answer)
        except (DecodeError, ValueError) as err:
            return f"request {request}: the answer cannot be decoded: {err}"
        for name, expected in self.expected[request].items():
            if name not in found:
                return f"request {request}: output '{name}' is not in the answer"
            if told := self._difference(expected, found[name][1]):
                return f"request {request}: output '{name}'{told}"
        return None

    def _difference(self, expected: Array, got: Array) -> str:
        if expected.shape != got.shape:
            return f": expected shape {list(expected.shape)}, got {list(got.shape)}"
        equal = self._equal(expected, got)
        if equal.all():
            return ""
        index = tuple(int(one) for one in np.argwhere(~equal)[0])
        more = int(np.count_nonzero(~equal)) - 1
        told = f"{list(index)}: expected {expected[index]!s}, got {got[index]!s}"
        return f"{told}, and {more} more" if more else told

    def _equal(self, expected: Array, got: Array) -> NDArray[np.bool_]:
        kinds = {expected.dtype.kind, got.dtype.kind}
        if kinds & set("OSU"):
            same = [_text(left) == _text(right) for left, right in zip(expected.flat, got.flat, strict=True)]
            return np.array(same, bool).reshape(expected.shape)
        if "f" in kinds:
            close = np.isclose(got.astype("f8"), expected.astype("f8"), self.rtol, self.atol, equal_nan=True)
            return np.asarray(close, bool)
        return np.asarray(expected == got, bool)


def _text(value: object) -> object:
    return value.encode() if isinstance(value, str) else value


def from_file(
    path: Path, told: Sequence[Tensor], layout: Layout, rows: int, requests: int, rtol: float, atol: float
) -> Truth:
    """Expected outputs by name; rows go with the rows of the inputs. Raises StartError if they do not fit."""
    found, declared = arrays.read(path), {one.name: one for one in told}
    if told and (unknown := sorted(found.keys() - declared.keys())):
        raise StartError(f"{path}: '{unknown[0]}' is no output of the model; it has {', '.join(declared)}")
    parts: dict[str, list[Array]] = {}
    for name, array in found.items():
        tensor = declared.get(name) or _guess(name, array, layout, requests)
        parts[name] = arrays.split(path, tensor, array, layout, rows)
        if len(parts[name]) not in (1, requests):
            raise StartError(f"{path}: '{name}' is enough for {len(parts[name])} request(s) of {requests}")
    whole = arrays.requests(path, parts)
    return Truth([whole[index % len(whole)] for index in range(requests)], rtol, atol)


def _guess(name: str, array: Array, layout: Layout, requests: int) -> Tensor:
    """An output that the server does not describe."""
    counted = requests > 1 and not layout.batched
    return Tensor(name=name, datatype="", shape=(-1,) * (array.ndim - counted))


def from_answers(answers: Sequence[bytes], rtol: float, atol: float) -> Truth:
    """Take these serialized answers as right. Raises StartError if one cannot be decoded."""
    try:
        return Truth([{name: values for name, (_, values) in outputs(one).items()} for one in answers], rtol, atol)
    except (DecodeError, ValueError) as err:
        raise StartError(f"--check: the server's answer cannot be decoded: {err}") from err


@dataclass(slots=True)
class Judge:
    """Judges the answers of one measurement, those of its warm-up too."""

    truth: Truth
    right: int = 0
    wrong: int = 0
    unjudged: int = 0
    first_wrong: str | None = None
    accepted: list[set[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.accepted = [set() for _ in self.truth.expected]

    def look(self, part: Slice, generator: Generator) -> None:
        """Count a slice's answers, and have the generator know the right ones from now on."""
        self.right += part.right
        self.unjudged += part.unjudged
        end_ns = monotonic_ns() + JUDGING_NS
        for request, answer in part.odd:
            if answer in self.accepted[request]:
                self.right += 1
            elif monotonic_ns() > end_ns:
                self.unjudged += 1
            elif told := self.truth.wrong(request, answer):
                self.wrong += 1
                self.first_wrong = self.first_wrong or told
            else:
                self.right += 1
                if len(self.accepted[request]) < MAX_VARIANTS:
                    self.accepted[request].add(answer)
                    generator.accept(request, answer)

    @property
    def answers(self) -> Answers:
        """The counts so far."""
        return Answers(right=self.right, wrong=self.wrong, unjudged=self.unjudged, first_wrong=self.first_wrong)
