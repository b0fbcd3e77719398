"""Arrays from .npz files, dealt out to requests."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from inferd.bench.result import Tensor
from inferd.bench.shapes import Layout
from inferd.bench.tensors import NUMPY_TYPES, Array
from inferd.errors import StartError


def read(path: Path) -> dict[str, Array]:
    """All arrays of an .npz file by name. Raises StartError if it cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            if isinstance(stored, np.ndarray):
                raise StartError(f"{path}: holds one array without a name; write it with numpy.savez(FILE, name=array)")
            return {name: stored[name] for name in stored.files}
    except OSError as err:
        raise StartError(f"{path}: cannot be read: {err.strerror or err}") from err
    except (ValueError, zipfile.BadZipFile, EOFError) as err:
        raise StartError(
            f"{path}: not an .npz file of plain arrays; save strings as numpy's S or U type, not as objects"
        ) from err


def split(path: Path, tensor: Tensor, array: Array, layout: Layout, rows: int) -> list[Array]:
    """The array as one part per request.

    With as many dimensions as the tensor it holds all rows of all requests one after the other; with one less it is
    one row, and every row of the only request. Where there are no rows, one dimension more counts requests.
    Raises StartError if it fits neither way.
    """
    rank, rowed = len(tensor.shape), layout.has_rows(tensor)
    # From the last dimension back, without the one that counts rows.
    pairs = zip(reversed(tensor.shape[1:] if rowed else tensor.shape), reversed(array.shape), strict=False)
    if any(0 <= declared != length for declared, length in pairs):
        raise StartError(f"{path}: '{tensor.name}' has shape {list(array.shape)}, the model says {list(tensor.shape)}")
    if rowed:
        if array.ndim == rank - 1:
            return [np.repeat(array[np.newaxis], rows, 0)]
        if array.ndim == rank and len(array) and len(array) % rows == 0:
            return list(array.reshape(-1, rows, *array.shape[1:]))
        if array.ndim == rank:
            raise StartError(f"{path}: '{tensor.name}' has {len(array)} row(s), no multiple of the {rows} in a request")
    elif array.ndim == rank:
        return [array]
    elif array.ndim == rank + 1 and len(array):
        return list(array)
    raise StartError(f"{path}: '{tensor.name}' has shape {list(array.shape)}, the model says {list(tensor.shape)}")


def requests(path: Path, parts: Mapping[str, list[Array]]) -> list[dict[str, Array]]:
    """Request by request what each of its tensors is; a tensor with one part has it in all requests.

    Raises StartError if the tensors speak of different numbers of requests.
    """
    counts = {name: len(found) for name, found in parts.items()}
    total = max(counts.values(), default=1)
    if wrong := [name for name, count in counts.items() if count not in (1, total)]:
        longest = max(counts, key=lambda name: counts[name])
        raise StartError(f"{path}: '{wrong[0]}' is enough for {counts[wrong[0]]} request(s), '{longest}' for {total}")
    return [{name: found[index % len(found)] for name, found in parts.items()} for index in range(total)]


def described(arrays: Mapping[str, Array]) -> tuple[Tensor, ...]:
    """The arrays as inputs, for a server that does not say what its model takes."""
    return tuple(Tensor(name=name, datatype=datatype(array), shape=array.shape) for name, array in arrays.items())


def datatype(array: Array) -> str:
    """The protocol's name for an array's type. Raises StartError if it has none."""
    if array.dtype.kind in "SUO":
        return "BYTES"
    for name, numpy_type in NUMPY_TYPES.items():
        if name != "BF16" and np.dtype(numpy_type) == array.dtype:
            return name
    raise StartError(f"an array of type {array.dtype} cannot be sent; the protocol has no such type")


def cast(path: Path, tensor: Tensor, array: Array) -> Array:
    """The array in the tensor's type. Raises StartError if that would change its kind."""
    wanted = np.dtype(NUMPY_TYPES[tensor.datatype])
    strings = array.dtype.kind in "SU"
    if strings != (tensor.datatype == "BYTES") or not (strings or np.can_cast(array.dtype, wanted, "same_kind")):
        raise StartError(f"{path}: '{tensor.name}' is {array.dtype}, the model takes {tensor.datatype}")
    return array if strings else array.astype(wanted, copy=False)


def require(path: Path, there: Iterable[str], names: Iterable[str]) -> None:
    """Raise StartError if one of the names is not there."""
    known = set(there)
    if absent := [name for name in names if name not in known]:
        raise StartError(f"{path}: has no array '{absent[0]}'; it has {', '.join(sorted(known)) or 'none'}")
