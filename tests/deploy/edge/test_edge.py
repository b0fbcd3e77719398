"""What the shipped configurations of Envoy and nginx both do."""

from __future__ import annotations

from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_reflection.v1alpha import reflection_pb2_grpc
from serve.calls import arrays, request, rows
from serve.process import Server, free_ports
from serve.proxies.front import LIMIT_S
from serve.proxies.trickle import trickling
from serve.scrape import counted

from inferd.proto import inference_pb2 as pb

from .certificates import Certificates
from .conftest import LAME_DUCK
from .edges import EDGES, Edge, answer_of

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
OFFERED = {
    "ModelInfer", "ModelStreamInfer", "ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics",
    "ServerLive", "ServerReady", "ServerMetadata",
}  # fmt: skip
Code = grpc.StatusCode


def answered(servers: list[Server]) -> list[int]:
    """How many inferences each has answered so far."""
    return [counted(one, "scale").codes.get("OK", 0) for one in servers]


def infer(edge: Edge, calls: int) -> None:
    """So many calls on one connection, each with the right answer."""
    with edge.stub() as stub:
        for seed in range(calls):
            answer = stub.ModelInfer(request("scale", x=rows(seed)), timeout=LIMIT_S)
            assert np.array_equal(arrays(answer)["y"], rows(seed) * np.float32(2))


def test_the_program_itself_finds_no_fault(edge: Edge) -> None:
    said = edge.verdict()
    assert said.returncode == 0, said.stderr
    assert "warn" not in said.stderr.lower()
    assert "deprecated" not in (said.stdout + said.stderr).lower()


def test_calls_of_one_connection_go_to_every_replica_and_none_to_the_canary(edge: Edge, servers: list[Server]) -> None:
    before = answered(servers)
    infer(edge, 60)
    first, second, canary = (now - then for now, then in zip(answered(servers), before, strict=True))
    assert first + second == 60
    assert min(first, second) >= 10
    assert canary == 0


def test_weights_send_a_part_of_the_calls_to_the_canary(edge: Edge, servers: list[Server]) -> None:
    try:
        for percent, least, most in ((25, 20, 90), (100, 200, 200)):
            edge.send_to_canary(percent)
            before = answered(servers)[2]
            infer(edge, 200)
            # 25 % of 200 calls lies within these bounds but once in a million times.
            assert least <= answered(servers)[2] - before <= most
    finally:
        edge.send_to_canary(0)


@pytest.mark.parametrize("method", [one.name for one in SERVICE.methods])
def test_only_what_is_named_may_be_called(edge: Edge, method: str) -> None:
    with edge.channel() as channel:
        call = channel.stream_stream(f"/{SERVICE.full_name}/{method}")
        code, _ = answer_of(lambda: list(call(iter([b""]), timeout=LIMIT_S)))
    assert (code is not Code.PERMISSION_DENIED) == (method in OFFERED)


def test_reflection_stays_inside(edge: Edge) -> None:
    with edge.channel() as channel:
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        assert answer_of(lambda: list(call(iter([]), timeout=LIMIT_S)))[0] is Code.PERMISSION_DENIED


def test_a_path_that_only_looks_like_one_that_is_offered_is_refused(edge: Edge) -> None:
    with edge.channel() as channel:
        for path in (
            f"/{SERVICE.full_name}/ModelInfer/../RepositoryModelLoad",
            f"/{SERVICE.full_name}/ModelInferX",
            f"//{SERVICE.full_name}/RepositoryIndex",
            f"/{SERVICE.full_name}/Repository%49ndex",
        ):
            call = channel.unary_unary(path)
            assert answer_of(lambda call=call: call(b"", timeout=LIMIT_S))[0] not in (Code.OK, Code.UNIMPLEMENTED)


@pytest.mark.parametrize("who", ["nobody", "intruder"])
def test_clients_without_a_certificate_of_the_authority_are_not_let_in(
    edge: Edge, servers: list[Server], certificates: Certificates, who: str
) -> None:
    before = answered(servers)
    with edge.channel(getattr(certificates, who)()) as channel:
        call = channel.unary_unary(f"/{SERVICE.full_name}/ModelInfer")
        code, _ = answer_of(lambda: call(request("scale", x=rows(1)).SerializeToString(), timeout=LIMIT_S))
    # Envoy ends the connection; nginx lets it stand and says 400 to whatever is asked on it.
    assert code in (Code.UNAVAILABLE, Code.INTERNAL)
    assert answered(servers) == before


def test_metadata_with_an_underscore_comes_through(edge: Edge) -> None:
    with edge.stub() as stub:
        call = stub.ModelStreamInfer(
            iter([request("nobody", x=rows(1))]), metadata=(("triton_grpc_error", "true"),), timeout=LIMIT_S
        )
        assert answer_of(lambda: list(call))[0] is Code.NOT_FOUND


def test_a_replica_that_drains_or_is_not_there_costs_no_call(
    edge: Edge, scale: Path, servers: list[Server], certificates: Certificates, tmp_path: Path
) -> None:
    one = Server(scale, tmp_path, "native", (LAME_DUCK, "--warmup-budget-ms=0"), {})
    own = None
    try:
        one.wait_until_ready()
        ports = [one.grpc_port, servers[0].grpc_port]
        (tmp_path / "edge").mkdir()
        own = type(edge)(tmp_path / "edge", certificates, ports, servers[2].grpc_port)
        own.wait_until_ready()
        with trickling(own) as trickle:  # type: ignore[arg-type]
            assert counted(one, "scale").codes
            one.terminate()
            assert one.wait() == 0
            trickle.wait_for(30)
        assert trickle.failures == []
        assert trickle.wrong == 0
    finally:
        one.stop()
        if own is not None:
            own.stop()


def test_what_no_replica_can_take_is_unavailable_in_the_words_of_grpc(
    edge: Edge, certificates: Certificates, tmp_path: Path
) -> None:
    own = type(edge)(tmp_path, certificates, free_ports(1), free_ports(1)[0])
    try:
        with own.stub() as stub:
            code, _ = answer_of(
                lambda: stub.ModelInfer(request("scale", x=rows(1)), timeout=LIMIT_S, wait_for_ready=True)
            )
        assert code is Code.UNAVAILABLE
    finally:
        own.stop()


def test_both_proxies_are_tried() -> None:
    assert set(EDGES) == {"envoy", "nginx"}
