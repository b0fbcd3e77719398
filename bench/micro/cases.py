"""The cases. What is measured is the call from Python, its own cost included: that is what the server pays.

Each function below prepares `count` operations. The native modules are imported inside, because the build under
test may be older than this file: a case that it lacks is new, and no reason to measure nothing.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING

from bench.micro.case import Case, Work
from bench.micro.traffic import IMAGE, MAX_ROWS, STRING, TINY, TOKENS, Model, of_width, strings_message, words

if TYPE_CHECKING:
    from inferd._native.batch import Batch
    from inferd._native.queue import BatchQueue
    from inferd._native.signature import Signature
    from inferd._native.wire import Request

STRINGS = 64
# Requests that are bound or queued are used up by it; more of them at once would measure the caches.
FRESH = 512
FRESH_LARGE = 16


def decode(model: Model, typed: bool, count: int) -> Work:
    """Message bytes to a Request."""
    from inferd._native.wire import Request, decode

    message = model.message(typed=typed)
    inputs = [(one.name, one.datatype, (1, *one.dims)) for one in model.inputs]
    contents = [] if typed else [one.raw for one in model.inputs]

    def done(last: object) -> bool:
        return isinstance(last, Request) and last.inputs() == inputs and last.raw_contents() == contents

    return Work(repeat((decode, message), count), done, len(message))


def bind(model: Model, typed: bool, count: int) -> Work:
    """A Request against a Signature; typed contents become raw ones."""
    from inferd._native.bind import bind
    from inferd._native.wire import decode

    signature, message = model.signature(), model.message(typed=typed)
    requests = [decode(message) for _ in range(count)]
    contents = [one.raw for one in model.inputs]

    def done(_: object) -> bool:
        last = requests[-1]
        return last.rows == 1 and [last.tensor_bytes(index) for index in range(len(contents))] == contents

    return Work([(bind, signature, request) for request in requests], done, len(message))


def queue(signature: Signature, batch_rows: int = MAX_ROWS) -> BatchQueue:
    """An empty queue with room for everything."""
    from inferd._native.queue import BatchQueue

    return BatchQueue(signature, batch_rows=batch_rows, max_queue_rows=1 << 20, max_queue_bytes=1 << 40)


def took(*expected: Request) -> Callable[[object], bool]:
    """Whether the last call returned a batch of these requests."""

    def done(last: object) -> bool:
        from inferd._native.batch import Batch

        return isinstance(last, Batch) and last.members == list(expected)

    return done


def put_take(waiting: int, count: int) -> Work:
    """One request in and the oldest one out, with so many waiting when it is taken."""
    signature = TINY.signature()
    requests = TINY.bound(signature, waiting - 1 + count)
    line = queue(signature, batch_rows=1)
    for request in requests[: waiting - 1]:
        line.put(request, 0)
    pairs = (((line.put, request, 0), (line.take, 0)) for request in requests[waiting - 1 :])
    return Work(list(chain.from_iterable(pairs)), took(requests[count - 1]))


def put_take_of_a_caller(count: int) -> Work:
    """One request in and out again, as of a client that sends one after the other to an idle server."""
    from inferd._native.admission import Admission

    signature, admission = TINY.signature(), Admission()
    requests, caller = TINY.bound(signature, count), admission.connection()
    for request in requests:
        admission.admit(request, caller)
    line = queue(signature, batch_rows=1)
    pairs = (((line.put, request, 0), (line.take, 0)) for request in requests)
    return Work(list(chain.from_iterable(pairs)), took(requests[-1]))


def put_take_batch(rows: int, count: int) -> Work:
    """So many requests in, and out again as one batch."""
    signature = TINY.signature()
    requests = TINY.bound(signature, rows * count)
    line = queue(signature)
    groups = [requests[first : first + rows] for first in range(0, len(requests), rows)]
    calls = ([*((line.put, request, 0) for request in group), (line.take, 0)] for group in groups)
    return Work(list(chain.from_iterable(calls)), took(*groups[-1]))


def put_take_shapes(shapes: int, count: int) -> Work:
    """The oldest request out and one of its shape in, each of the waiting ones with a shape of its own."""
    from inferd._native.signature import Signature

    signature = Signature("any", "1", [("x", 1, [-1, -1])], [("y", 1, [-1, 1])], batched=True, max_rows=MAX_ROWS)
    kinds = [of_width(width).bound(signature, 1 + -(-count // shapes)) for width in range(1, shapes + 1)]
    requests = list(chain.from_iterable(zip(*kinds, strict=True)))
    line = queue(signature)
    for request in requests[:shapes]:
        line.put(request, 0)
    pairs = (((line.take, 0), (line.put, request, 0)) for request in requests[shapes : shapes + count])

    def done(_: object) -> bool:
        oldest = line.take(0)
        return line.requests == shapes - 1 and oldest is not None and oldest.members == [requests[count]]

    return Work(list(chain.from_iterable(pairs)), done)


def put_drop(waiting: int, count: int) -> Work:
    """A request in and out again before it is taken, as when its caller goes away."""
    signature = TINY.signature()
    *others, request = TINY.bound(signature, waiting)
    line = queue(signature)
    for other in others:
        line.put(other, 0)
    calls = [(line.put, request, 0), (line.drop, request)]
    return Work(chain.from_iterable(repeat(calls, count)), lambda last: last is True and line.requests == waiting - 1)


def batch_of(model: Model, rows: int) -> Batch:
    """So many requests as one batch."""
    signature = model.signature()
    line = queue(signature)
    for request in model.bound(signature, rows):
        line.put(request, 0)
    batch = line.take(0)
    assert batch is not None
    return batch


def gather(model: Model, rows: int, count: int) -> Work:
    """The first input of a batch into one buffer."""
    from inferd._native.gather import gather

    batch = batch_of(model, rows)
    expected = model.inputs[0].raw * rows
    memory = array("B", bytes(len(expected)))
    address, capacity = memory.buffer_info()
    return Work(
        repeat((gather, batch, 0, address, capacity), count),
        lambda last: last == len(expected) and memory.tobytes() == expected,
        len(expected),
    )


def strings(count: int) -> Work:
    """The elements of a BYTES input as Python strings."""
    from inferd._native.batch import alone
    from inferd._native.bind import bind
    from inferd._native.gather import strings
    from inferd._native.signature import Signature
    from inferd._native.wire import decode

    signature = Signature("text", "1", [("text", STRING, [-1])], [], batched=True, max_rows=STRINGS)
    request = decode(strings_message(STRINGS))
    bind(signature, request)
    size = sum(map(len, words(STRINGS)))
    return Work(repeat((strings, alone(signature, request), 0), count), lambda last: last == words(STRINGS), size)


def encode(model: Model, rows: int, count: int) -> Work:
    """The results of a run to a message for each member of the batch."""
    from inferd._native.reply import answer

    batch = batch_of(model, rows)
    expected = model.answer()
    return Work(
        repeat((answer, batch, model.results(rows)), count),
        lambda _: [member.answer for member in batch.members] == [expected] * rows,
        len(expected) * rows,
    )


def view(count: int) -> Work:
    """The description of one output of a run, made anew for every run."""
    from inferd._native.reply import OutputView

    memory = array("B", bytes(8))
    make = partial(OutputView, 1, (1, 2), address=memory.buffer_info()[0], owner=memory)
    return Work(repeat((make,), count), lambda last: isinstance(last, OutputView))


def doorbell(count: int) -> Work:
    """A ring, and a wait that finds it."""
    from inferd._native.doorbell import Doorbell

    bell = Doorbell()
    return Work(chain.from_iterable(repeat([(bell.ring,), (bell.wait, 0)], count)), lambda last: last is True)


def count_request(count: int) -> Work:
    """The end of a request in the statistics of its model."""
    from inferd._native.stats import ModelStats

    # As many bounds as the server's own histograms have.
    bounds = [2.0**power for power in range(-13, 4)]
    stats = ModelStats(bounds, bounds)
    return Work(repeat((stats.finished, 0, 0.004), count), lambda _: stats.requests_by_code == {0: count})


def record(count: int) -> Work:
    """A latency into the load runner's histogram."""
    from inferd._native.histogram import Histogram

    histogram = Histogram()
    latencies_ns = [50_000 + index * 7919 % 1_000_000 for index in range(min(count, 1000))]
    calls = ((histogram.record, latencies_ns[index % 1000]) for index in range(count))
    return Work(list(calls), lambda _: histogram.count == count)


def path(model: Model, rows: int, count: int) -> Work:
    """Everything but the model: messages in, one run's worth of rows gathered, answers out."""
    from inferd._native.bind import bind
    from inferd._native.gather import gather
    from inferd._native.reply import answer
    from inferd._native.wire import decode

    signature, message, results = model.signature(), model.message(), model.results(rows)
    line = queue(signature)
    buffers = [array("B", bytes(len(one.raw) * rows)) for one in model.inputs]
    places = [(index, *buffer.buffer_info()) for index, buffer in enumerate(buffers)]

    def serve() -> Sequence[Request]:
        for _ in range(rows):
            request = decode(message)
            bind(signature, request)
            line.put(request, 0)
        batch = line.take(time.monotonic_ns())
        assert batch is not None
        for index, address, capacity in places:
            gather(batch, index, address, capacity)
        answer(batch, results)
        return batch.members

    def done(last: object) -> bool:
        answers = [one.answer for one in last] if isinstance(last, list) else []
        gathered = [buffer.tobytes() for buffer in buffers]
        return answers == [model.answer()] * rows and gathered == [one.raw * rows for one in model.inputs]

    return Work(repeat((serve,), count), done, len(message) * rows)


def all_cases() -> list[Case]:
    """Every case, in the order of a request's way through the server."""
    sizes = (("tiny", TINY), ("tokens", TOKENS), ("image", IMAGE))
    kinds = [(name, model, False) for name, model in sizes]
    kinds += [("tokens, typed", TOKENS, True), ("image, typed", IMAGE, True)]
    batches = [("tiny", TINY, 1), ("tokens", TOKENS, 1), ("image", IMAGE, 1), ("64 tiny", TINY, 64)]
    found = []
    for name, model, typed in kinds:
        found.append(Case("decode", name, partial(decode, model, typed)))
    for name, model, typed in kinds:
        most = FRESH_LARGE if model is IMAGE else FRESH
        found.append(Case("bind", name, partial(bind, model, typed), most))
    found += [
        Case("put, take", "1 waiting", partial(put_take, 1), FRESH),
        Case("put, take", "64 waiting", partial(put_take, 64), FRESH),
        Case("put, take", "1 waiting, of a known caller", put_take_of_a_caller, FRESH),
        Case("put, take", "64 as one batch", partial(put_take_batch, 64), FRESH // 64),
        Case("put, take", "64 waiting, of 64 shapes", partial(put_take_shapes, 64), FRESH),
        Case("put, drop", "64 waiting", partial(put_drop, 64)),
        Case("ring, wait", "no thread asleep", doorbell),
    ]
    for name, model, rows in batches:
        found.append(Case("gather", name, partial(gather, model, rows)))
    found.append(Case("gather", "64 strings", strings))
    found.append(Case("output view", "tiny", view))
    for name, model, rows in batches:
        found.append(Case("encode", name, partial(encode, model, rows)))
    found.append(Case("count", "a request", count_request))
    for name, model, rows in batches:
        found.append(Case("all but the run", name, partial(path, model, rows)))
    found.append(Case("record", "a latency of the load runner", record))
    return found
