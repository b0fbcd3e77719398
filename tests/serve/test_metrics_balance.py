"""No request is lost on the metrics page: whatever its end, it is in exactly one place at every scrape."""

from __future__ import annotations

import threading
import time

import grpc

from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from .calls import request, rows, slow
from .process import POLL_S, Server
from .scrape import balance, samples

TIMEOUT_S = 30.0


def test_what_was_accepted_is_in_one_place_at_every_scrape(zoo: Server, stub: GRPCInferenceServiceStub) -> None:
    start = balance(samples(zoo), "slow")
    over = threading.Event()
    failures: list[BaseException] = []

    def client(number: int) -> None:
        with zoo.stub() as own:
            turn = number
            while not over.is_set():
                turn += 1
                try:
                    if turn % 4 == 0:
                        own.ModelInfer(slow(rows(1), 20), timeout=0.005)
                    elif turn % 4 == 1:
                        own.ModelInfer.future(slow(rows(1), 5)).cancel()
                    elif turn % 4 == 2:
                        own.ModelInfer(request("slow", x=rows(1)))  # without its other input
                    else:
                        own.ModelInfer(slow(rows(1), 1))
                except grpc.RpcError:
                    pass
                except BaseException as failure:
                    failures.append(failure)
                    raise

    clients = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for one in clients:
        one.start()
    try:
        end = time.monotonic() + TIMEOUT_S
        scrapes = 0
        while True:
            accepted, ok, failed, in_flight = balance(samples(zoo), "slow")
            assert accepted == ok + failed + in_flight
            scrapes += 1
            if scrapes >= 30 and ok - start[1] >= 10 and failed - start[2] >= 10:
                break
            assert time.monotonic() < end, (start, accepted, ok, failed)
    finally:
        over.set()
        for one in clients:
            one.join()
    assert not failures
    while balance(samples(zoo), "slow")[3]:
        assert time.monotonic() < end
        time.sleep(POLL_S)
    accepted, ok, failed, _ = balance(samples(zoo), "slow")
    assert accepted == ok + failed


def test_streamed_requests_are_in_the_balance_too(zoo: Server, stub: GRPCInferenceServiceStub) -> None:
    before = balance(samples(zoo), "mlp")
    good = [request("mlp", x=rows(1)) for _ in range(3)]
    bad = request("mlp", x=rows(1, width=3))
    answers = list(stub.ModelStreamInfer(iter([*good, bad])))
    assert len(answers) == 4
    accepted, ok, failed, in_flight = (
        now - then for now, then in zip(balance(samples(zoo), "mlp"), before, strict=True)
    )
    assert (ok, in_flight) == (3, 0)
    assert accepted == ok + failed == 3
