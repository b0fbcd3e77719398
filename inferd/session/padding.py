"""Prepared batch sizes: on a GPU a batch is filled up to one of a few, so that few shapes are to be ready for.

Each shape costs a device something the first time: cuDNN searches, memory is planned, a CUDA graph is recorded. A
row of padding costs next to nothing while the device is not full.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


def prepared_sizes(max_rows: int, preferred: Sequence[int] = ()) -> tuple[int, ...]:
    """The powers of two below `max_rows`, `max_rows` itself, and those of the preferred sizes that are no more."""
    powers = (1 << bits for bits in range(max(max_rows, 1).bit_length()))
    return tuple(sorted({rows for rows in (*powers, *preferred, max_rows) if 1 <= rows <= max_rows}))


def prepared_rows(rows: int, sizes: Sequence[int]) -> int:
    """The smallest of the sizes, which rise, that `rows` fit into.

    More rows than the largest has are left as they are: nothing is prepared for those.
    """
    at = bisect_left(sizes, rows)
    return sizes[at] if at < len(sizes) else rows
