"""The best classes of an output, as text: "score:index" or "score:index:label".

Equal scores stay in the order of their indices, and what is not a number comes after all that are. A score reads as
C++'s std::to_string has it: integers plain, floats with six decimals.
"""

cimport cython
from libc.math cimport INFINITY, NAN, ldexp
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy

from inferd._native.datatype cimport (
    BF16, FP16, FP32, FP64, INT8, INT16, INT32, INT64, UINT16, UINT32, UINT64, element_size,
)
from inferd._native.span cimport Span, span_length

ctypedef fused Number:
    int8_t
    int16_t
    int32_t
    int64_t
    uint8_t
    uint16_t
    uint32_t
    uint64_t
    float
    double

cdef enum:
    RELEASE_FROM_BYTES = 65536
    # The largest double has 309 digits before the point.
    LONGEST_SCORE = 400
    # Of a half float, all of them together.
    FRACTION_BITS = 10


cdef struct Text:
    # Grows as it is written to; owned by best_classes.
    uint8_t* data
    size_t used
    size_t room


@cython.final
cdef class Labels:
    """The names of an output's classes, by index; an empty one is none."""

    def __cinit__(self, lines):
        cdef int64_t i
        cdef bytes line
        self.lines = tuple(lines)
        self.count = len(self.lines)
        self.spans = <Span*>calloc(<size_t>max(self.count, 1), sizeof(Span))
        if self.spans == NULL:
            raise MemoryError
        for i in range(self.count):
            line = self.lines[i]
            self.spans[i].at = <const uint8_t*><const char*>line
            self.spans[i].end = self.spans[i].at + len(line)

    def __dealloc__(self):
        free(self.spans)


cdef inline bint ranks_before(const Number* scores, int64_t a, int64_t b) noexcept nogil:
    cdef Number x = scores[a], y = scores[b]
    if x > y:
        return True
    if x < y:
        return False
    if Number is float or Number is double:
        if (x == x) != (y == y):
            return x == x
    return a < b


cdef void sink(const Number* scores, int64_t* heap, int64_t at, int64_t size) noexcept nogil:
    """Restore the heap, in which no index ranks after the one above it, below `at`."""
    cdef int64_t child, moved = heap[at]
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and ranks_before(scores, heap[child], heap[child + 1]):
            child += 1
        if ranks_before(scores, heap[child], moved):
            break
        heap[at] = heap[child]
        at = child
    heap[at] = moved


cdef void select(const Number* scores, int64_t width, int64_t classes, int64_t* best) noexcept nogil:
    """The indices of the best `classes` of `width` scores, best first. A heap keeps the worst of them at hand."""
    cdef int64_t i, last
    for i in range(classes):
        best[i] = i
    for i in range(classes // 2 - 1, -1, -1):
        sink(scores, best, i, classes)
    for i in range(classes, width):
        if ranks_before(scores, i, best[0]):
            best[0] = i
            sink(scores, best, 0, classes)
    for i in range(classes - 1, 0, -1):
        last = best[i]
        best[i] = best[0]
        best[0] = last
        sink(scores, best, 0, i)


cdef bint append(Text* text, const void* data, size_t nbytes) noexcept nogil:
    cdef size_t room = text.room
    cdef void* larger
    if nbytes > room - text.used:
        room = 2 * (text.used + nbytes)
        larger = realloc(text.data, room)
        if larger == NULL:
            return False
        text.data = <uint8_t*>larger
        text.room = room
    if nbytes:
        memcpy(text.data + text.used, data, nbytes)
        text.used += nbytes
    return True


cdef int score_text(char* to, Number score) noexcept nogil:
    if Number is float or Number is double:
        return snprintf(to, LONGEST_SCORE, b"%f", <double>score)
    elif Number is uint8_t or Number is uint16_t or Number is uint32_t or Number is uint64_t:
        return snprintf(to, LONGEST_SCORE, b"%llu", <unsigned long long>score)
    else:
        return snprintf(to, LONGEST_SCORE, b"%lld", <long long>score)


cdef bint put_row(
    const Number* scores, int64_t width, int64_t classes, int64_t* best, Span* labels, int64_t label_count, Text* text
) noexcept nogil:
    """One row's classes as BYTES elements; False without memory."""
    cdef char written[LONGEST_SCORE + 32]
    cdef int64_t i
    cdef int length
    cdef size_t label_length
    cdef uint32_t prefix
    select(scores, width, classes, best)
    for i in range(classes):
        length = score_text(written, scores[best[i]])
        length += snprintf(written + length, 32, b":%lld", <long long>best[i])
        label_length = <size_t>span_length(labels[best[i]]) if best[i] < label_count else 0
        prefix = <uint32_t>(<size_t>length + label_length + (1 if label_length else 0))
        if not append(text, &prefix, 4) or not append(text, written, <size_t>length):
            return False
        if label_length and (not append(text, b":", 1) or not append(text, labels[best[i]].at, label_length)):
            return False
    return True


cdef float half(uint16_t bits) noexcept nogil:
    """An IEEE 754 half float."""
    cdef int exponent = (bits >> FRACTION_BITS) & 0x1F
    cdef int fraction = bits & 0x3FF
    cdef double size
    if exponent == 0x1F:
        size = INFINITY if fraction == 0 else NAN
    elif exponent:
        size = ldexp(fraction + 0x400, exponent - 15 - FRACTION_BITS)
    else:
        size = ldexp(fraction, 1 - 15 - FRACTION_BITS)
    return <float>(-size if bits >> 15 else size)


cdef void widen(int datatype, const uint8_t* data, int64_t width, float* to) noexcept nogil:
    """Half floats as floats, which hold each of them exactly."""
    cdef const uint16_t* halves = <const uint16_t*>data
    cdef uint32_t bits
    cdef int64_t i
    for i in range(width):
        if datatype == FP16:
            to[i] = half(halves[i])
        else:
            bits = <uint32_t>halves[i] << 16
            memcpy(&to[i], &bits, 4)


cdef bint put_any_row(
    int datatype, const uint8_t* data, float* widened, int64_t width, int64_t classes, int64_t* best,
    Span* labels, int64_t count, Text* text,
) noexcept nogil:
    if datatype == FP32:
        return put_row(<const float*>data, width, classes, best, labels, count, text)
    if datatype == FP64:
        return put_row(<const double*>data, width, classes, best, labels, count, text)
    if datatype == FP16 or datatype == BF16:
        widen(datatype, data, width, widened)
        return put_row(<const float*>widened, width, classes, best, labels, count, text)
    if datatype == INT64:
        return put_row(<const int64_t*>data, width, classes, best, labels, count, text)
    if datatype == INT32:
        return put_row(<const int32_t*>data, width, classes, best, labels, count, text)
    if datatype == INT16:
        return put_row(<const int16_t*>data, width, classes, best, labels, count, text)
    if datatype == INT8:
        return put_row(<const int8_t*>data, width, classes, best, labels, count, text)
    if datatype == UINT64:
        return put_row(<const uint64_t*>data, width, classes, best, labels, count, text)
    if datatype == UINT32:
        return put_row(<const uint32_t*>data, width, classes, best, labels, count, text)
    if datatype == UINT16:
        return put_row(<const uint16_t*>data, width, classes, best, labels, count, text)
    # UINT8, and BOOL, which is a byte too.
    return put_row(data, width, classes, best, labels, count, text)


cdef bint put_rows(
    int datatype, const uint8_t* data, float* widened, int64_t rows, int64_t width, int64_t classes, int64_t* best,
    Span* labels, int64_t count, Text* text,
) noexcept nogil:
    cdef int64_t row, row_nbytes = width * element_size(datatype)
    for row in range(rows):
        if not put_any_row(datatype, data + row * row_nbytes, widened, width, classes, best, labels, count, text):
            return False
    return True


cdef bytes best_classes(int datatype, const uint8_t* data, int64_t rows, int64_t width, int64_t classes, Labels labels):
    """The best `classes`, at most `width`, of each of `rows` rows of `width` numbers at `data`, as BYTES elements."""
    cdef Text text
    cdef bint done = False
    cdef Span* spans = NULL if labels is None else labels.spans
    cdef int64_t count = 0 if labels is None else labels.count
    cdef int64_t* best
    cdef float* widened
    if rows == 0 or classes == 0:
        return b""
    text.data, text.used, text.room = NULL, 0, 0
    best = <int64_t*>malloc(<size_t>classes * sizeof(int64_t))
    widened = <float*>malloc(<size_t>width * sizeof(float)) if datatype == FP16 or datatype == BF16 else NULL
    try:
        if best == NULL or (widened == NULL and (datatype == FP16 or datatype == BF16)):
            raise MemoryError
        if rows * width * element_size(datatype) >= RELEASE_FROM_BYTES:
            with nogil:
                done = put_rows(datatype, data, widened, rows, width, classes, best, spans, count, &text)
        else:
            done = put_rows(datatype, data, widened, rows, width, classes, best, spans, count, &text)
        if not done:
            raise MemoryError
        return (<const char*>text.data)[:text.used]
    finally:
        free(best)
        free(widened)
        free(text.data)
