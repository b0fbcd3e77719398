"""`inferd bench`, from options to a report."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
from google.protobuf.message import DecodeError
from rich.console import Console

from inferd.bench import cost, inputs, options, report, sweep, verify
from inferd.bench.generator import Traffic
from inferd.bench.inputs import Inputs
from inferd.bench.machine import this_machine
from inferd.bench.measure import Meter, measure
from inferd.bench.options import Options
from inferd.bench.result import Load, Point, Report, Subject, Tensor
from inferd.bench.shapes import Layout, settle
from inferd.bench.target import Description, Refused, Target
from inferd.bench.tensors import outputs
from inferd.bench.verify import Judge, Truth
from inferd.bench.window import Plan
from inferd.errors import StartError
from inferd.version import version

WRONG = 1


def run(given: Options) -> int:
    """Measure, report, and return the exit code. Raises StartError if nothing can be measured."""
    options.check(given)
    loads, metadata = _loads(given), options.headers(given.header)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    with Target(given.address, given.model, given.model_version, metadata) as target:
        description = target.describe()
        layout = Layout.of(description.inputs, description.max_batch_size)
        made = _inputs(given, description, layout)
        messages = made.messages(given.model, given.model_version, options.parameters(given.parameter))
        answer = _alone(target, messages[0])
        truth, right = _truth(given, target, description.outputs, layout, messages)
        traffic = Traffic(
            given.address,
            messages,
            metadata=metadata,
            timeout_ns=given.timeout_ms * 1_000_000,
            answers=right,
        )
        local = cost.is_local(given.address)
        points = _points(given, loads, traffic, target, truth, local)
    found = Report(
        started=started,
        inferd=version(),
        command=shlex.join(["inferd", *sys.argv[1:]]),
        machine=this_machine(),
        local=local,
        subject=_subject(given, description, made, messages[0], answer),
        sweep="none" if len(loads) == 1 else "rate" if given.rate else "concurrency",
        points=points,
        knee=sweep.knee(points),
    )
    _write(given, found)
    return WRONG if _bad(points) else 0


def _loads(given: Options) -> tuple[Load, ...]:
    if given.rate:
        rates = sweep.values("--rate", given.rate)
        return sweep.open_loops(rates, given.connections, given.max_in_flight, given.arrivals)
    return sweep.closed_loops(sweep.values("--concurrency", given.concurrency or "8"), given.connections)


def _inputs(given: Options, description: Description, layout: Layout) -> Inputs:
    shapes = options.shapes(given.shape)
    if given.data not in ("random", "zeros"):
        path = Path(given.data)
        return inputs.stored(path, given.model, description.inputs, layout, given.batch, shapes)
    if not description.inputs:
        raise StartError(f"{given.address} does not tell the inputs of model '{given.model}'; give --data FILE.npz")
    values = inputs.Values(
        zeros=given.data == "zeros",
        distinct=given.requests_distinct,
        seed=given.seed,
        integers=options.integers(given.int_range),
        string_length=given.string_length,
        string=given.string,
    )
    return inputs.made_up(settle(given.model, description.inputs, layout, given.batch, shapes), values)


def _alone(target: Target, message: bytes) -> bytes:
    """The answer to the first request; empty if that is refused, which is measured all the same."""
    try:
        return target.infer(message)
    except Refused as refused:
        click.echo(f"inferd: the first request was refused: {refused}", err=True)
        return b""


def _truth(
    given: Options, target: Target, outputs: Sequence[Tensor], layout: Layout, messages: Sequence[bytes]
) -> tuple[Truth | None, tuple[tuple[bytes, ...], ...] | None]:
    """What answers are compared with, if they are, and for each request the serialized ones known to be right."""
    truth: Truth | None = None
    if given.expect is not None:
        tolerances = given.rtol, given.atol
        truth = verify.from_file(given.expect, outputs, layout, given.batch, len(messages), *tolerances)
    elif not given.check:
        return None, None
    try:
        answers = [target.infer(one) for one in messages]
    except Refused as refused:
        if truth is None:
            raise StartError(f"--check: no answer to compare with: {refused}") from None
        return truth, tuple(() for _ in messages)
    truth = truth or verify.from_answers(answers, given.rtol, given.atol)
    return truth, tuple(() if truth.wrong(index, one) else (one,) for index, one in enumerate(answers))


def _points(
    given: Options, loads: tuple[Load, ...], traffic: Traffic, target: Target, truth: Truth | None, local: bool
) -> tuple[Point, ...]:
    plan = Plan(given.warmup, given.window, given.max_windows, given.stability, given.duration, given.requests)
    told: set[str] = set()
    points: list[Point] = []
    with report.Progress() as progress:
        for load in loads:
            progress.phase(f"{given.model}, {_label(load)}")
            point = measure(
                traffic,
                load,
                plan,
                rows=given.batch,
                threads=given.threads,
                seed=given.seed,
                meter=Meter(_processes(given, local, told), target),
                judge=Judge(truth) if truth else None,
                progress=progress,
            )
            points.append(point)
            progress.point(point)
            why = sweep.beyond(point, given.latency_limit)
            if why and (point.stalled or len(points) < len(loads)):
                click.echo(f"inferd: ended at {_label(load)}: {why}", err=True)
                break
    return tuple(points)


def _label(load: Load) -> str:
    return f"{load.rate:g} requests/s" if load.rate else f"{load.connections * load.streams} in flight"


def _processes(given: Options, local: bool, told: set[str]) -> cost.Processes | None:
    """Looked for before each point: a server may start processes when it is needed."""
    if given.server_pid:
        return cost.named(given.server_pid)
    found = cost.listening(given.address) if local else None
    if isinstance(found, str):
        if found not in told:
            click.echo(f"inferd: {found}", err=True)
        told.add(found)
        return None
    return found


def _subject(given: Options, description: Description, made: Inputs, message: bytes, answer: bytes) -> Subject:
    return Subject(
        address=given.address,
        server=description.server,
        server_version=description.server_version,
        model=given.model,
        model_version=description.model_version,
        inputs=made.tensors,
        outputs=_outputs(answer) or description.outputs,
        data=made.data,
        request_bytes=len(message),
        answer_bytes=len(answer),
    )


def _outputs(answer: bytes) -> tuple[Tensor, ...]:
    try:
        found = outputs(answer)
    except (DecodeError, ValueError):
        return ()
    return tuple(Tensor(name=name, datatype=told, shape=values.shape) for name, (told, values) in found.items())


def _write(given: Options, found: Report) -> None:
    stored = found.model_dump_json(by_alias=True, indent=2)
    if given.json == "-":
        click.echo(stored)
    else:
        report.text.render(found, Console())
    try:
        if given.json not in (None, "-"):
            Path(given.json).write_text(stored + "\n")
        if given.html is not None:
            report.page.write(found, given.html)
    except OSError as err:
        raise StartError(f"{err.filename}: cannot be written: {err.strerror}") from err


def _bad(points: tuple[Point, ...]) -> bool:
    """Whether an answer was wrong, the server stopped answering, or no request was answered well at all."""
    wrong = any(point.stalled or (point.answers is not None and point.answers.wrong) for point in points)
    return wrong or not any(point.ok for point in points)
