"""Names of an output's classes: a text file in the model's folder, one label a line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from inferd.repository.faults import fault
from inferd.repository.tensors import TensorDecl

LARGEST_LABELS_BYTES = 16 << 20


def read_labels(home: Path, outputs: Iterable[TensorDecl]) -> Mapping[str, tuple[bytes, ...]]:
    """The labels of each output that names a file of them; `home` is the model's folder, with links resolved.

    Raises RepositoryError for a file that cannot be read, is too large or lies elsewhere.
    """
    return MappingProxyType({decl.name: _lines(home, decl) for decl in outputs if decl.label_filename})


def _lines(home: Path, decl: TensorDecl) -> tuple[bytes, ...]:
    what = f"label_filename {decl.label_filename!r} of output {decl.name!r}"
    try:
        # Strictly resolved, so that no link leads out of the folder.
        path = (home / decl.label_filename).resolve(strict=True)
        if not path.is_relative_to(home):
            raise fault(f"{what} leads out of the model's folder; put a copy inside it")
        if not path.is_file():
            raise fault(f"{what} is not a regular file")
        with path.open("rb") as file:
            text = file.read(LARGEST_LABELS_BYTES + 1)
    except OSError as exc:
        raise fault(f"{what} cannot be read: {exc.strerror or os.strerror(exc.errno or 0)}") from None
    except RuntimeError:  # Python before 3.13, for links in a circle
        raise fault(f"{what} is a link in a circle") from None
    if len(text) > LARGEST_LABELS_BYTES:
        raise fault(f"{what} is larger than {LARGEST_LABELS_BYTES} bytes")
    lines = text.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return tuple(line.removesuffix(b"\r") for line in lines)
