"""Which outputs a request is answered with, in which form, and where they go."""

from libc.stdint cimport int16_t
from libc.stdlib cimport malloc
from libc.string cimport memset

from inferd._native.datatype cimport BYTES
from inferd._native.region cimport Regions
from inferd._native.signature cimport Signature, near_output
from inferd._native.span cimport span_equals
from inferd._native.wire cimport Request, shown

from inferd.errors import InvalidRequest, NotOffered


cdef int choose_outputs(Signature s, Request r, Regions regions) except -1:
    """Mark the outputs asked for. They are answered in the model's order, whatever the order asked."""
    cdef int k, i
    cdef bint known
    if not r.wanted_count:
        return 0
    if s.output_count <= <int>(sizeof(r.inline_chosen) // sizeof(int16_t)):
        r.chosen = r.inline_chosen
    else:
        r.chosen = <int16_t*>malloc(<size_t>s.output_count * sizeof(int16_t))
        if r.chosen == NULL:
            raise MemoryError
    memset(r.chosen, 0, <size_t>s.output_count * sizeof(int16_t))
    for k in range(r.wanted_count):
        name = shown(r.wanted[k].name)
        if r.wanted[k].classes < 0:
            raise InvalidRequest(
                f"parameter 'classification' of output {name} is not an int64 of at least 1, or 0 for the values themselves"
            )
        if r.wanted[k].in_shared_memory:
            if regions is None:
                raise NotOffered(f"output {name} asks for shared memory, which this server does not offer")
            if r.wanted[k].classes:
                raise InvalidRequest(f"output {name} asks for its classes and for shared memory; ask for one of them")
            r.hold(regions.place(&r.wanted[k].place, r.wanted[k].body, 2, f"output {name}"))
            if r.wanted[k].place.of_gpu != NULL:
                r.on_gpu = True
        known = False
        for i in range(s.output_count):
            if span_equals(r.wanted[k].name, s.outputs[i].name, s.outputs[i].name_length):
                if r.chosen[i]:
                    raise InvalidRequest(f"output {name} is asked for more than once")
                if r.wanted[k].classes and s.outputs[i].datatype == BYTES:
                    raise InvalidRequest(f"output {name} is BYTES, which have no order of classes; leave 'classification' out")
                if r.wanted[k].place.of_gpu != NULL and s.outputs[i].datatype == BYTES:
                    raise InvalidRequest(f"output {name} is BYTES, which cannot go to memory of a GPU")
                r.chosen[i] = <int16_t>(k + 1)
                known = True
        if not known:
            raise InvalidRequest(f"model '{s.model}' has no output {name}{near_output(s, r.wanted[k].name)}")
    return 0
