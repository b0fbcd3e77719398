"""Reports as a measurement would write them: made up, from fixed seeds, with latencies shaped like those of queues."""

from __future__ import annotations

import numpy as np

from inferd.bench.result import (
    Answers,
    Failure,
    Latency,
    Load,
    Machine,
    Moment,
    Point,
    Report,
    ServerCost,
    Statistics,
    Subject,
    Tensor,
)

MACHINE = Machine(
    processor="Example CPU @ 2.50GHz", cpus=8, memory_bytes=32 << 30, system="Linux 6.1.0", python="CPython 3.11.7"
)
SUBJECT = Subject(
    address="localhost:8001",
    server="inferd",
    server_version="0.1.0",
    model="churn",
    model_version="1",
    inputs=(Tensor(name="features", datatype="FP32", shape=(1, 8)),),
    outputs=(
        Tensor(name="label", datatype="INT64", shape=(1,)),
        Tensor(name="probability", datatype="FP32", shape=(1, 2)),
    ),
    data="random values, seed 0",
    request_bytes=86,
    answer_bytes=113,
)


def latency(median_us: float, spread: float, count: int, seed: int) -> Latency:
    """Log-normal around the median, one in a thousand ten times slower."""
    random = np.random.default_rng(seed)
    drawn = random.lognormal(np.log(median_us * 1e3), spread, count) * np.where(random.random(count) < 1e-3, 10, 1)
    values = np.sort(np.minimum(drawn, 4.5e9)).astype(np.int64)
    step = 10 ** np.maximum(np.floor(np.log10(values)) - 2, 0)
    tops, counts = np.unique((np.ceil(values / step) * step).astype(np.int64), return_counts=True)

    def at(percent: float) -> int:
        return int(values[min(count - 1, int(percent / 100 * count))])

    return Latency(
        count=count,
        mean_ns=float(values.mean()),
        min_ns=at(0),
        p50_ns=at(50),
        p90_ns=at(90),
        p99_ns=at(99),
        p999_ns=at(99.9),
        max_ns=at(100),
        buckets=tuple(zip(tops.tolist(), counts.tolist(), strict=True)),
    )


def moments(
    speed: float, times: Latency, errors: float, seed: int, warm_up_s: float = 2, seconds: float = 12
) -> tuple[Moment, ...]:
    """Tenths of seconds; slow at the start, as caches and batch sizes settle."""
    random = np.random.default_rng(seed)
    made = []
    for index in range(round((warm_up_s + seconds) * 10)):
        cold = 1 + 1.5 * np.exp(-index / 5)
        p50, p99 = times.p50_ns * cold * random.normal(1, 0.02), times.p99_ns * cold * random.lognormal(0, 0.08)
        made.append(
            Moment(
                start_s=index / 10,
                seconds=0.1,
                measured=index >= warm_up_s * 10,
                ok=int(speed / 10 / cold * random.normal(1, 0.02)),
                errors=int(random.poisson(errors / 10)) if index > 10 else 0,
                p50_ns=int(p50),
                p99_ns=int(p99),
            )
        )
    return tuple(made)


def point(
    load: Load,
    speed: float,
    median_us: float,
    spread: float = 0.18,
    *,
    failed: float = 0,
    batch: float = 1,
    seed: int = 0,
    stable: bool = True,
) -> Point:
    """A load that a server on this machine answered at `speed`, refusing `failed` more per second."""
    seconds = 12.0
    times = latency(median_us, spread, min(int(speed * seconds), 50_000), seed)
    requests = int(speed * seconds)
    return Point(
        load=load,
        rows=1,
        stable=stable,
        windows=12,
        seconds=seconds,
        ok=requests,
        requests_per_second=speed,
        rows_per_second=speed,
        sent_bytes_per_second=speed * 91,
        received_bytes_per_second=speed * 118,
        latency=times,
        failures=(
            Failure(
                code="RESOURCE_EXHAUSTED",
                count=int(failed * seconds),
                message="the queue of model 'churn' is full: 256 requests wait",
            ),
        )
        if failed
        else (),
        timeline=moments(speed, times, failed, seed),
        answers=Answers(right=requests, wrong=0, unjudged=0),
        server=ServerCost(
            processes=1,
            cpu_seconds=seconds * min(1.9, 0.3 + speed / 9000),
            cpu_us_per_request=1e6 * min(1.9, 0.3 + speed / 9000) / speed,
            rss_start=212 << 20,
            rss_end=214 << 20,
        ),
        statistics=Statistics(
            inferences=requests,
            executions=int(requests / batch),
            queue_ns=int(requests * median_us * 250),
            compute_input_ns=requests * 1_900,
            compute_infer_ns=int(requests * median_us * 400),
            compute_output_ns=requests * 2_400,
        ),
    )


def report(*points: Point, **changes: object) -> Report:
    """A report of these points."""
    return Report.model_validate(
        {
            "started": "2026-01-31T12:00:00Z",
            "inferd": "0.1.0",
            "command": "inferd bench localhost:8001 churn",
            "machine": MACHINE,
            "local": True,
            "subject": SUBJECT,
            "sweep": "none",
            "points": points,
            **changes,
        }
    )


def single() -> Report:
    """One closed loop."""
    return report(point(Load(connections=1, streams=16), 8_432.1, 1_830, batch=6.2))


def concurrency_sweep() -> Report:
    """Eight closed loops with a knee at 16 in flight; the last one never became stable."""
    speeds = (1_420, 2_610, 4_480, 6_900, 8_850, 9_310, 9_420, 9_380)
    points = [
        point(
            Load(connections=1, streams=2**index),
            speed,
            2**index / speed * 0.97e6,
            0.12 + 0.03 * index,
            batch=1 + index,
            seed=index,
            stable=index < 7,
        )
        for index, speed in enumerate(speeds)
    ]
    return report(
        *points,
        sweep="concurrency",
        knee=4,
        command="inferd bench localhost:8001 churn --concurrency 1,2,4,8,16,32,64,128",
    )


def rate_sweep() -> Report:
    """Six open loops, the last two more than the server can do."""
    loads = (
        (1_000, 1_000, 640),
        (2_000, 2_000, 660),
        (4_000, 4_000, 720),
        (8_000, 8_000, 1_300),
        (10_000, 9_350, 26_000),
    )
    points = [
        point(
            Load(connections=4, streams=64, rate=rate, arrivals="poisson"),
            speed,
            median,
            0.25,
            batch=index + 1,
            seed=index,
        )
        for index, (rate, speed, median) in enumerate(loads)
    ]
    overload = point(
        Load(connections=4, streams=64, rate=16_000, arrivals="poisson"),
        9_100,
        1_450_000,
        0.4,
        failed=2_900,
        seed=9,
        stable=False,
    )
    points.append(
        overload.model_copy(update={"unanswered": 4_210, "oldest_unanswered_ns": 4_120_000_000, "reconnects": 1})
    )
    return report(
        *points,
        sweep="rate",
        knee=3,
        command="inferd bench localhost:8001 churn --rate 1000,2000,4000,8000,10000,16000 --arrivals poisson",
    )


def bare() -> Report:
    """A remote server that says nothing of itself and answered nothing."""
    silent = Point(
        load=Load(connections=1, streams=1),
        rows=1,
        stable=False,
        windows=0,
        seconds=0.0,
        ok=0,
        requests_per_second=0.0,
        rows_per_second=0.0,
        sent_bytes_per_second=0.0,
        received_bytes_per_second=0.0,
        latency=Latency(count=0),
        timeline=(Moment(start_s=0.0, seconds=0.1, measured=False, ok=0, errors=0, p50_ns=0, p99_ns=0),),
    )
    subject = SUBJECT.model_copy(update={"server": "", "server_version": "", "answer_bytes": 0})
    return report(silent, subject=subject, local=False)


def refused() -> Report:
    """Every request failed, and then the server stopped answering at all."""
    point = bare().points[0]
    timeline = tuple(
        Moment(start_s=index / 10, seconds=0.1, measured=index > 19, ok=0, errors=40, p50_ns=0, p99_ns=0)
        for index in range(50)
    )
    failure = Failure(code="UNAVAILABLE", count=1_200, message="model 'churn' is loading")
    failing = point.model_copy(update={"windows": 3, "seconds": 3.0, "failures": (failure,), "timeline": timeline})
    stalled = failing.model_copy(
        update={
            "load": Load(connections=1, streams=2),
            "stalled": True,
            "unanswered": 2,
            "oldest_unanswered_ns": 5_000_000_000,
        }
    )
    return report(failing, stalled, sweep="concurrency")


def hostile() -> Report:
    """Every text that a server or a user chooses tries to be something else."""
    nasty = "<script>alert('1')</script> $x^2$ & \"q\" \x1b[31m\x00 [bold]b[/] ]]> </style> <!-- \u202e \ud800"
    tensor = Tensor(name=nasty, datatype=nasty, shape=(1,))
    subject = Subject(
        address=nasty,
        server=nasty,
        server_version=nasty,
        model=nasty,
        model_version=nasty,
        inputs=(tensor,),
        outputs=(tensor,),
        data=nasty,
        request_bytes=1,
        answer_bytes=1,
    )
    made = point(Load(connections=1, streams=4), 5_000, 700)
    failure = Failure(code=nasty, count=3, message=nasty)
    wrong = Answers(right=1, wrong=2, unjudged=0, first_wrong=nasty)
    worse = made.model_copy(update={"failures": (failure,), "answers": wrong})
    place = Machine(processor=nasty, cpus=1, memory_bytes=1, system=nasty, python=nasty)
    return report(worse, worse, subject=subject, machine=place, command=nasty, started=nasty, sweep="concurrency")
