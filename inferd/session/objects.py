"""Runs of models with strings: ONNX Runtime takes and gives Python objects for those, so nothing is bound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from inferd._native.batch import Batch
from inferd._native.gather import gather, gpu_pieces, strings
from inferd._native.reply import OutputView
from inferd.session.session import Session
from inferd.session.tensors import NUMPY_TYPES, STRING


def feeds_of(session: Session, batch: Batch) -> Mapping[str, Any]:
    """The inputs of a batch as arrays."""
    feeds: dict[str, Any] = {}
    for index, info in enumerate(session.inputs):
        if not batch.has_input(index):
            continue
        shape = batch.input_shape(index)
        if info.element_type == STRING:
            elements = np.empty(len(found := strings(batch, index)), object)
            elements[:] = found
            feeds[info.name] = elements.reshape(shape)
        else:
            array = np.empty(shape, NUMPY_TYPES[info.element_type])
            gather(batch, index, array.ctypes.data, array.nbytes)
            if batch.on_gpu:
                for offset, region, at, nbytes in gpu_pieces(batch, index):
                    region.memory.read(at, array.ctypes.data + offset, nbytes)
            feeds[info.name] = array
    return feeds


def views_of(session: Session, values: list[Any]) -> list[OutputView]:
    """The outputs of a run; each view keeps its array."""
    views = []
    for info, value in zip(session.outputs, values, strict=True):
        if info.element_type == STRING:
            views.append(OutputView(STRING, value.shape, strings=np.asarray(value, object).ravel().tolist()))
        else:
            array = np.asarray(value, order="C")
            views.append(OutputView(info.element_type, array.shape, address=array.ctypes.data, owner=array))
    return views
