"""Inputs that a request leaves out: the model has a value of its own for those that config.pbtxt calls optional."""

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from inferd._native.signature cimport Signature, near_input
from inferd._native.span cimport span_equals, span_length
from inferd._native.wire cimport Request, Tensor, shown

from inferd.errors import InvalidRequest


cdef int leave_out(Signature s, Request r) except -1:
    """The number of inputs is not the model's: put an absent one for each that may be missing, behind those sent.

    Raises InvalidRequest if others are missing, or some are too many.
    """
    cdef int i, k, sent = r.tensor_count
    cdef bint is_sent
    cdef Tensor* tensors
    if sent > s.input_count or not s.optional_count:
        refuse_count(s, r)
    if r.tensor_room < s.input_count:
        tensors = <Tensor*>malloc(<size_t>s.input_count * sizeof(Tensor))
        if tensors == NULL:
            raise MemoryError
        memcpy(tensors, r.tensors, <size_t>sent * sizeof(Tensor))
        if r.tensors != r.inline_tensors:
            free(r.tensors)
        r.tensors, r.tensor_room = tensors, s.input_count
    for i in range(s.input_count):
        is_sent = False
        for k in range(sent):
            is_sent |= span_equals(r.tensors[k].name, s.inputs[i].name, s.inputs[i].name_length)
        if is_sent:
            continue
        if not s.inputs[i].optional or sent + r.absent_count == s.input_count:
            refuse_count(s, r)
        tensors = &r.tensors[sent + r.absent_count]
        memset(tensors, 0, sizeof(Tensor))
        tensors.absent = True
        tensors.datatype = s.inputs[i].datatype
        tensors.name.at = s.inputs[i].name  # which the request keeps with its signature
        tensors.name.end = s.inputs[i].name + s.inputs[i].name_length
        r.absent_count += 1
    if sent + r.absent_count != s.input_count:
        refuse_count(s, r)
    r.tensor_count = s.input_count
    return 0


cdef int refuse_count(Signature s, Request r) except -1:
    """The number of inputs is wrong: say which are missing, else which are too many."""
    cdef int i, k
    sent = [(<const char*>r.tensors[k].name.at)[:span_length(r.tensors[k].name)] for k in range(r.tensor_count)]
    known = [s.inputs[i].name[:s.inputs[i].name_length] for i in range(s.input_count)]
    missing = ", ".join(
        [repr(known[i].decode()) for i in range(s.input_count) if not s.inputs[i].optional and known[i] not in sent]
    )
    if missing:
        raise InvalidRequest(
            f"model '{s.model}' takes {s.input_count} inputs but the request has {r.tensor_count}; missing: {missing}"
        )
    for k in range(r.tensor_count):
        if sent[k] not in known:
            raise InvalidRequest(
                f"model '{s.model}' has no input {shown(r.tensors[k].name)}{near_input(s, r.tensors[k].name)}"
            )
        if sent[k] in sent[:k]:
            raise InvalidRequest(f"input {shown(r.tensors[k].name)} appears more than once")
    raise InvalidRequest(f"model '{s.model}' takes {s.input_count} inputs but the request has {r.tensor_count}")
