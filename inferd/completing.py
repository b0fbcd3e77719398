"""config.pbtxt beside the model: what contradicts the model is refused, what the file leaves out is filled in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from inferd.errors import ModelFailed
from inferd.repository import ModelDecl, TensorDecl
from inferd.session import Session, TensorInfo


def agree(decl: ModelDecl, session: Session) -> None:
    """Hold the file against the model, and make the session's shapes as narrow as the file says.

    The file may say less than the model, and may fix a size that the model leaves open. Raises ModelFailed with
    what both say where they differ.
    """
    session.offer_defaults({tensor.name for tensor in decl.inputs})
    for side, decls, infos in _sides(decl, session):
        known = {info.name for info in infos}
        for tensor in decls:
            if tensor.name not in known:
                has = ", ".join(f"'{info.name}'" for info in infos) or "none"
                raise ModelFailed(
                    f"config.pbtxt names the {side} '{tensor.name}', which model '{decl.name}' does not have; "
                    f"it has {has}"
                )
    said = decl.batching.max_batch_size
    session.inputs, session.outputs = (
        tuple(_narrowed(side, _named(decls, info), info, said) for info in infos)
        for side, decls, infos in _sides(decl, session)
    )


def complete(decl: ModelDecl, session: Session, *, batched: bool, why: str) -> ModelDecl:
    """The declaration with every tensor of the model in it, in the model's order, as clients see it.

    Raises ModelFailed where dims leave out a batch dimension and the model is not `batched`, because of `why`.
    """
    said = decl.batching.max_batch_size
    for side, decls, infos in _sides(decl, session):
        for info in infos:
            tensor = _named(decls, info)
            if tensor is not None and not batched and _leaves_out_rows(tensor, info, said):
                raise ModelFailed(
                    f"config.pbtxt says {side} '{info.name}' has dims {list(tensor.dims)}; the model says "
                    f"{list(info.shape)}, and it is not batched: {why}. Write all dims, or set max_batch_size"
                )
    inputs, outputs = (
        tuple(_completed(_named(decls, info), info, batched) for info in infos)
        for _, decls, infos in _sides(decl, session)
    )
    return replace(decl, inputs=inputs, outputs=outputs)


def _sides(decl: ModelDecl, session: Session) -> Iterable[tuple[str, tuple[TensorDecl, ...], tuple[TensorInfo, ...]]]:
    return (("input", decl.inputs, session.inputs), ("output", decl.outputs, session.outputs))


def _named(decls: tuple[TensorDecl, ...], info: TensorInfo) -> TensorDecl | None:
    found = next((decl for decl in decls if decl.name == info.name), None)
    if found is not None and found.dims == (1,) and found.reshape is None and info.shape == ():
        # How the file says scalar where there is no batch dimension: a reshape to nothing is not allowed there.
        return replace(found, reshape=())
    return found


def _narrowed(side: str, decl: TensorDecl | None, info: TensorInfo, said: int | None) -> TensorInfo:
    if decl is None:
        return info
    if decl.datatype and decl.datatype != info.datatype:
        raise ModelFailed(f"config.pbtxt says {side} '{decl.name}' is {decl.datatype}; the model says {info.datatype}")
    if side == "input":
        if decl.optional and not info.optional:
            raise ModelFailed(
                f"config.pbtxt says input '{decl.name}' is optional, but the model has no value of its own for it; "
                "remove optional, or export the model with an initializer of that name among the graph's inputs"
            )
        info = replace(info, optional=decl.optional)
    if not decl.dims:
        return info
    rows = info.shape[:1] if _leaves_out_rows(decl, info, said) else ()
    rest = info.shape[len(rows) :]
    dims = _inner_dims(decl)
    if len(dims) != len(rest) or any(a >= 0 and b >= 0 and a != b for a, b in zip(dims, rest, strict=True)):
        what = "dims" if decl.reshape is None else "the reshape"
        raise ModelFailed(
            f"config.pbtxt says {side} '{decl.name}' has {what} {list(dims)}; the model says {list(rest)}"
            + (" without the batch dimension" if rows else "")
        )
    narrow = tuple(b if a < 0 else a for a, b in zip(dims, rest, strict=True))
    sent = None if decl.reshape is None else (*rows, *_reshaped(decl, narrow))
    return replace(info, shape=(*rows, *narrow), sent=sent)


def _reshaped(decl: TensorDecl, narrow: tuple[int, ...]) -> Iterable[int]:
    """The dims that clients see, as narrow as the model is: open dimensions match in their order."""
    known = iter([size for said, size in zip(_inner_dims(decl), narrow, strict=True) if said < 0])
    return (next(known) if size < 0 else size for size in decl.dims)


def _inner_dims(decl: TensorDecl) -> tuple[int, ...]:
    """The dims as the model has them."""
    return decl.dims if decl.reshape is None else decl.reshape


def _leaves_out_rows(decl: TensorDecl, info: TensorInfo, said: int | None) -> bool:
    """Whether dims are without the batch dimension. Where nobody says max_batch_size, their number tells."""
    if said is not None or not decl.dims:
        return bool(said)
    return len(_inner_dims(decl)) + 1 == len(info.shape) and info.shape[0] < 0


def _completed(decl: TensorDecl | None, info: TensorInfo, batched: bool) -> TensorDecl:
    if decl is None:
        decl = TensorDecl(info.name, "", ())
    start = 1 if batched else 0
    reshape = None if info.sent is None else info.shape[start:]
    return replace(decl, datatype=info.datatype, dims=info.wire[start:], reshape=reshape)
