"""Prepared batch sizes: on a GPU a batch is filled up to one of a few, so that few shapes are to be ready for.

Each shape costs a device something the first time: cuDNN searches, memory is planned, a CUDA graph is recorded. A
row of padding costs next to nothing while the device is not full.
"""

from __future__ import annotations


def prepared_rows(rows: int, max_rows: int) -> int:
    """The size to run `rows` at: the next power of two, or `max_rows`, whichever is less.

    More rows than `max_rows` are left as they are: nothing is prepared for those.
    """
    if rows >= max_rows:
        return rows
    return int(min(1 << (rows - 1).bit_length(), max_rows))
