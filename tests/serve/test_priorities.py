"""Who is served first and who is told to go: priorities, queue policies and order, for tritonclient."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import onnx_models as models
import pytest
import tritonclient.grpc as triton

from inferd.proto import inference_pb2 as pb
from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from .backlog import BUSY_MS, occupy
from .calls import arrays, code_of, request, rows, slow, trips_for
from .conftest import SLOW_ALONE
from .process import CHANNEL_OPTIONS, Server
from .scrape import counted, wait_for

TWO = "instance_group { count: 2 }"
ALONE = f"{SLOW_ALONE} dynamic_batching"
LEVELS = "priority_levels: 3 default_priority_level: 2"
CONFIGS = {
    "slow": SLOW_ALONE,
    "levels": f"{ALONE} {{ {LEVELS} }}",
    "reject": f"{ALONE} {{ default_queue_policy {{ default_timeout_microseconds: 100000 }} }}",
    "override": f"""{ALONE} {{ default_queue_policy {{
        default_timeout_microseconds: 60000000 allow_timeout_override: true }} }}""",
    "delay": f"{ALONE} {{ default_queue_policy {{ timeout_action: DELAY allow_timeout_override: true }} }}",
    "sizes": f"""{ALONE} {{ {LEVELS} default_queue_policy {{ max_queue_size: 2 }}
        priority_queue_policy {{ key: 1 value {{ max_queue_size: 1 }} }} }}""",
    "unordered": f"{ALONE} {{ }} {TWO}",
    "ordered": f"{ALONE} {{ preserve_ordering: true }} {TWO}",
}
PATIENCE_MS = 1
PASSED_OVER = 8


@pytest.fixture(scope="module")
def server(transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A slow model for each kind of queue."""
    folder = tmp_path_factory.mktemp("priorities")
    for name, config in CONFIGS.items():
        models.write(folder / "repository", name, models.slow(), config=config)
    models.write(
        folder / "repository",
        "embedding",
        models.embedding(),
        config="max_batch_size: 4 dynamic_batching "
        f"{{ preserve_ordering: true preferred_batch_size: 4 max_queue_delay_microseconds: 200000 }} {TWO}",
    )
    flags = ("--warmup-budget-ms=0", "--batching-learn=false", f"--batching-priority-patience-ms={PATIENCE_MS}")
    started = Server(folder / "repository", folder, transport, flags, {})
    with started.while_ready():
        yield started


@pytest.fixture
def stub(server: Server) -> Iterator[GRPCInferenceServiceStub]:
    with server.stub() as connected:
        yield connected


class Client:
    """tritonclient, and the order in which its calls end."""

    def __init__(self, client: triton.InferenceServerClient) -> None:
        self._client = client
        self._begun = 0
        self._ends: queue.Queue[tuple[str, str]] = queue.Queue()

    def begin(self, model: str, name: str, duration_ms: float = 10, **more: Any) -> None:
        x, trips = triton.InferInput("x", [1, 4], "FP32"), triton.InferInput("trips", [1, 1], "INT64")
        x.set_data_from_numpy(rows(1))
        trips.set_data_from_numpy(np.array([[trips_for(duration_ms)]], "i8"))

        def end(result: Any, error: Any) -> None:
            self._ends.put((name, "OK" if error is None else error.status().removeprefix("StatusCode.")))

        self._client.async_infer(model, [x, trips], end, **more)
        self._begun += 1

    def has_arrived(self) -> None:
        """Wait until what was begun is at the server: a call after it on the same connection has its answer."""
        assert self._client.is_server_live()

    def ends(self, count: int | None = None) -> list[tuple[str, str]]:
        """Name and status of the next calls that end, of all that are left if it is not said how many."""
        wanted = self._begun if count is None else count
        self._begun -= wanted
        return [self._ends.get(timeout=30) for _ in range(wanted)]


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with triton.InferenceServerClient(server.address, channel_args=list(CHANNEL_OPTIONS)) as connected:
        yield Client(connected)


def names(ends: list[tuple[str, str]]) -> list[str]:
    assert {status for _, status in ends} == {"OK"}
    return [name for name, _ in ends]


def all_wait(server: Server, model: str, busy: Any, count: int) -> None:
    wait_for(server, model, lambda now: now.queue_rows == count)
    assert not busy.done(), "it was over before the others were there"


# --- priorities ------------------------------------------------------------------------------------------


def test_higher_priorities_are_served_first_while_the_model_is_busy(
    server: Server, stub: GRPCInferenceServiceStub, client: Client
) -> None:
    busy = occupy(server, stub, "levels", 2 * BUSY_MS)
    for name, priority in (("low", 3), ("default", 0), ("high", 1), ("default", 9), ("low", 3), ("high", 1)):
        client.begin("levels", name, priority=priority)
    all_wait(server, "levels", busy, 6)
    assert names(client.ends()) == ["high", "high", "default", "default", "low", "low"]


def test_a_low_priority_is_not_starved_by_a_queue_of_higher_ones(
    server: Server, stub: GRPCInferenceServiceStub, client: Client
) -> None:
    busy = occupy(server, stub, "levels", 2 * BUSY_MS)
    client.begin("levels", "low", priority=3)
    for _ in range(PASSED_OVER + 3):
        client.begin("levels", "high", 5, priority=1)
    all_wait(server, "levels", busy, PASSED_OVER + 4)
    assert names(client.ends()).index("low") == PASSED_OVER


def test_each_priority_has_a_bound_of_its_own(server: Server, stub: GRPCInferenceServiceStub, client: Client) -> None:
    busy = occupy(server, stub, "sizes", 2 * BUSY_MS)
    for name, priority in (("high", 1), ("low", 3), ("low", 3), ("default", 0)):
        client.begin("sizes", name, priority=priority)
    all_wait(server, "sizes", busy, 4)
    for name, priority in (("high", 1), ("low", 3)):
        client.begin("sizes", name, priority=priority)
    assert sorted(client.ends(2)) == [("high", "RESOURCE_EXHAUSTED"), ("low", "RESOURCE_EXHAUSTED")]
    assert not busy.done()
    assert names(client.ends()) == ["high", "default", "low", "low"]


# --- how long a request may wait -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "timeout_us"),
    [
        ("reject", None),
        ("override", 100_000),
        # No policy: the parameter is a deadline.
        ("slow", 100_000),
    ],
)
def test_a_request_whose_time_is_over_is_told_while_the_model_is_busy_and_never_runs(
    server: Server, stub: GRPCInferenceServiceStub, client: Client, model: str, timeout_us: int | None
) -> None:
    busy = occupy(server, stub, model, 2 * BUSY_MS)
    before = counted(server, model)
    client.begin(model, "late", timeout=timeout_us)
    assert client.ends() == [("late", "DEADLINE_EXCEEDED")]
    assert not busy.done()
    assert code_of(busy) is grpc.StatusCode.OK
    assert code_of(stub.ModelInfer.future(slow(rows(2), 0, model))) is grpc.StatusCode.OK
    after = counted(server, model).since(before)
    assert (after.rows, after.codes) == (2, {"OK": 2, "DEADLINE_EXCEEDED": 1})


def test_a_request_that_runs_when_its_time_in_the_queue_is_over_is_answered(
    server: Server, stub: GRPCInferenceServiceStub
) -> None:
    # On an idle model it does not wait; its run takes longer than it might have waited.
    assert code_of(stub.ModelInfer.future(slow(rows(1), 300, "reject"))) is grpc.StatusCode.OK


def test_a_timeout_that_is_a_deadline_ends_a_request_that_runs_too_long(client: Client) -> None:
    client.begin("slow", "long", BUSY_MS, timeout=50_000)
    assert client.ends() == [("long", "DEADLINE_EXCEEDED")]


def test_a_timeout_that_the_policy_does_not_let_override_means_nothing(
    server: Server, stub: GRPCInferenceServiceStub, client: Client
) -> None:
    client.begin("reject", "long", 300, timeout=1)
    assert names(client.ends()) == ["long"]


def test_a_longer_timeout_than_the_policys_does_not_lengthen_it(
    server: Server, stub: GRPCInferenceServiceStub, client: Client
) -> None:
    busy = occupy(server, stub, "reject", 2 * BUSY_MS)
    client.begin("reject", "late", timeout=60_000_000)
    assert client.ends() == [("late", "DEADLINE_EXCEEDED")]
    assert not busy.done()


def test_a_delayed_request_is_served_after_all_that_are_in_time(
    server: Server, stub: GRPCInferenceServiceStub, client: Client
) -> None:
    busy = occupy(server, stub, "delay", 2 * BUSY_MS)
    for name, timeout_us in (("late", 1), ("in time", None), ("late", 1), ("in time", 60_000_000)):
        client.begin("delay", name, timeout=timeout_us)
    all_wait(server, "delay", busy, 4)
    assert names(client.ends()) == ["in time", "in time", "late", "late"]


# --- order -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "expected"), [("ordered", ["long", "short"]), ("unordered", ["short", "long"])])
def test_order_holds_an_answer_back_until_those_before_it_are_there(
    server: Server, stub: GRPCInferenceServiceStub, client: Client, model: str, expected: list[str]
) -> None:
    client.begin(model, "long", BUSY_MS)
    client.has_arrived()
    client.begin(model, "short", 0)
    assert names(client.ends()) == expected


def test_order_does_not_wait_for_a_request_that_was_cancelled_in_the_queue(
    server: Server, stub: GRPCInferenceServiceStub
) -> None:
    before = counted(server, "ordered")
    busy = [stub.ModelInfer.future(slow(rows(seed), BUSY_MS, "ordered")) for seed in range(2)]
    assert stub.ServerLive(pb.ServerLiveRequest()).live  # on the same connection: those before it have arrived
    waiting = [stub.ModelInfer.future(slow(rows(seed), 0, "ordered")) for seed in (2, 3, 4)]
    wait_for(server, "ordered", lambda now: now.queue_rows == 3)
    assert waiting[1].cancel()
    for seed, call in ((2, waiting[0]), (4, waiting[2])):
        assert np.array_equal(arrays(call.result(timeout=20))["y"], rows(seed))
    assert [code_of(call) for call in busy] == [grpc.StatusCode.OK] * 2
    after = wait_for(server, "ordered", lambda now: now.since(before).requests == 5).since(before)
    assert after.codes == {"OK": 4, "CANCELLED": 1}


def test_order_survives_a_request_that_is_cancelled_while_it_runs(
    server: Server, stub: GRPCInferenceServiceStub, client: Client
) -> None:
    busy = stub.ModelInfer.future(slow(rows(0), BUSY_MS, "ordered"))
    assert stub.ServerLive(pb.ServerLiveRequest()).live
    client.begin("ordered", "next", 0)
    client.has_arrived()
    assert busy.cancel()
    client.begin("ordered", "last", 0)
    assert names(client.ends()) == ["next", "last"]


def test_order_keeps_a_bad_row_to_itself(stub: GRPCInferenceServiceStub) -> None:
    calls = [stub.ModelInfer.future(request("embedding", ids=np.array([[index]]))) for index in (5, 1, 99, 5)]
    codes = [code_of(call) for call in calls]
    ok = grpc.StatusCode.OK
    assert codes == [ok, ok, grpc.StatusCode.INVALID_ARGUMENT, ok]
    assert np.array_equal(arrays(calls[1].result())["vectors"][0, 0], models.EMBEDDING[1])


def test_the_server_says_that_it_schedules(server: Server) -> None:
    with triton.InferenceServerClient(server.address, channel_args=list(CHANNEL_OPTIONS)) as connected:
        assert "schedule_policy" in connected.get_server_metadata().extensions
