"""May requests for this model share a run? A dynamic first dimension is a hint, never an answer.

A model whose first axis is time, or that carries state, also has a dynamic first dimension. So where
config.pbtxt does not say, rows are run together and alone, and the answers must agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import product

import numpy as np

from inferd import synthetic
from inferd._native.batch import Batch, alone
from inferd._native.classes import Labels
from inferd._native.reply import answer
from inferd._native.signature import Signature
from inferd.errors import InferdError
from inferd.proto import inference_pb2
from inferd.session import BFLOAT16, NUMPY_TYPES, STRING, Session, Slot, TensorInfo

PROBE_ROWS = 3
PROBE_SEEDS = 2
# Of the largest value of an output. Wide enough for kernels that quantize over the whole batch, and far
# below what rows that really depend on each other show.
TOLERANCE = 0.02


@dataclass(frozen=True, slots=True)
class Batchability:
    """Whether rows may share a run, why, and the length of open dimensions at which the model ran."""

    batched: bool
    reason: str
    length: int | None = None


def declared(session: Session) -> str | None:
    """Why the shapes in the file rule batching out; None if they do not.

    The names of dimensions are not looked at: exporters invent a different one for every dimension that
    they infer, even where all are the batch. The probe tells.
    """
    if not session.inputs:
        return "it has no inputs"
    for what, infos in (("input", session.inputs), ("output", session.outputs)):
        for info in infos:
            if not info.shape:
                return f"{what} '{info.name}' is a scalar"
            for shape in (info.shape, info.wire):
                if shape[0] >= 0:
                    return f"{what} '{info.name}' has the fixed first dimension {shape[0]}"
    return None


def find_length(session: Session, signature: Signature, slot: Slot) -> tuple[int | None, str]:
    """A length for the open dimensions at which one row runs, and why the last try failed if there is none."""
    reason = ""
    lengths: Sequence[int] = synthetic.LENGTHS if has_open_dimensions(session.inputs, signature.batched) else (1,)
    for length in lengths:
        try:
            slot.run(alone(signature, synthetic.request(signature, session.inputs, 1, length)))
        except InferdError as failure:
            reason = str(failure)
        else:
            return length, ""
    return None, reason


def has_open_dimensions(inputs: Sequence[TensorInfo], batched: bool) -> bool:
    """Whether the file leaves a dimension other than the batch open."""
    return any(dim < 0 for info in inputs for dim in info.shape[1 if batched else 0 :])


def probe(session: Session, model: str) -> Batchability:
    """Run rows together and alone, and compare."""
    reason = declared(session)
    if reason is not None:
        return Batchability(False, reason)
    signature = signature_of(session, model, "0", batched=True, max_rows=PROBE_ROWS)
    with closing(Slot(session)) as slot:
        return _probe(session, signature, slot)


def _probe(session: Session, signature: Signature, slot: Slot) -> Batchability:
    length, failure = find_length(session, signature, slot)
    if length is None:
        return Batchability(
            False, f"no probe would run: {failure}; say max_batch_size in config.pbtxt if it is batchable"
        )
    kinds = (False, True) if any(info.optional for info in session.inputs) else (True,)
    for complete, seed in product(kinds, range(PROBE_SEEDS)):
        rows = synthetic.Rows(signature, session.inputs, length, seed, complete=complete)
        try:
            together = _outputs(session, slot, alone(signature, rows.request(PROBE_ROWS)))
        except InferdError as error:
            return Batchability(False, f"rows do not run together: {error}", length)
        for row in range(PROBE_ROWS):
            try:
                outputs = _outputs(session, slot, alone(signature, rows.request(1, first_row=row)))
            except InferdError as error:
                return Batchability(False, f"a single row does not run: {error}", length)
            for info, joint, solo in zip(session.outputs, together, outputs, strict=True):
                if not _agree(joint[row : row + 1], solo):
                    return Batchability(
                        False, f"rows run together differ from rows run alone in output '{info.name}'", length
                    )
    return Batchability(True, "rows run together agree with rows run alone", length)


def signature_of(
    session: Session,
    model: str,
    version: str,
    *,
    batched: bool,
    max_rows: int,
    lenient: bool = False,
    labels: Mapping[str, tuple[bytes, ...]] | None = None,
) -> Signature:
    """The wire's view of a session's inputs and outputs.

    With `lenient`, inputs may differ in their first dimension too, unless the file gives it one name in all.
    """
    names = {info.first_dimension for info in session.inputs}
    return Signature(
        model,
        version,
        [(info.name, info.element_type, info.wire) for info in session.inputs],
        [(info.name, info.element_type, info.wire) for info in session.outputs],
        batched=batched,
        max_rows=max_rows,
        lenient=lenient,
        broadcasts=lenient and (len(names) > 1 or None in names),
        labels={name: Labels(lines) for name, lines in (labels or {}).items()},
        optional={info.name for info in session.inputs if info.optional},
        model_inputs=[None if info.sent is None else info.shape for info in session.inputs],
        model_outputs=[None if info.sent is None else info.shape for info in session.outputs],
    )


def _outputs(session: Session, slot: Slot, batch: Batch) -> list[np.ndarray]:
    answer(batch, slot.run(batch))
    message = inference_pb2.ModelInferResponse.FromString(batch.members[0].answer or b"")
    found = []
    for info, tensor, raw in zip(session.outputs, message.outputs, message.raw_output_contents, strict=True):
        if info.element_type == STRING:
            array = np.array(_elements(raw), object)
        elif info.element_type == BFLOAT16:
            array = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
        else:
            array = np.frombuffer(raw, NUMPY_TYPES[info.element_type])
        found.append(array.reshape(tuple(tensor.shape)))
    return found


def _elements(raw: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(raw):
        length = int.from_bytes(raw[at : at + 4], "little")
        found.append(raw[at + 4 : at + 4 + length])
        at += 4 + length
    return found


def _agree(joint: np.ndarray, solo: np.ndarray) -> bool:
    if joint.shape != solo.shape:
        return False
    if joint.dtype.kind not in "fc":
        return bool(np.array_equal(joint, solo))
    largest = float(np.max(np.abs(solo), initial=0.0, where=np.isfinite(solo)))
    return bool(
        np.allclose(joint.astype("f8"), solo.astype("f8"), rtol=0, atol=TOLERANCE * largest + 1e-6, equal_nan=True)
    )
