"""Callers that weigh more than others get more of a model that is busy, and no more than that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import onnx_models as models
import pytest

from inferd.auth import keys
from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from .backlog import occupy
from .calls import code_of, rows, slow
from .conftest import SLOW_ALONE
from .process import Server, eventually
from .scrape import wait_for

EACH = 40
"""Requests of each caller; after 32 of both, the one that weighs more has some left."""

POLICY = """
rules:
- {who: [anyone], may: [health, metrics]}
- {who: [known], may: [infer]}
weights: {"key:heavy": 3}
"""


@contextmanager
def stub_of(server: Server, key: str) -> Iterator[GRPCInferenceServiceStub]:
    """A connection whose every call bears a key."""
    with server.channel() as channel:
        yield GRPCInferenceServiceStub(grpc.intercept_channel(channel, Bearing(key)))


class Bearing(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    """Adds a key to each call."""

    def __init__(self, key: str) -> None:
        self._key = key

    def intercept_unary_unary(self, continuation, client_call_details, request):  # type: ignore[no-untyped-def]
        details = client_call_details._replace(metadata=(("x-api-key", self._key),))
        return continuation(details, request)


@pytest.fixture
def weighing(repository: Path, server: Callable[..., Server], tmp_path: Path) -> tuple[Server, dict[str, str]]:
    """A server with one slow model, and the keys of two callers."""
    models.write(repository, "slow", models.slow(), config=SLOW_ALONE)
    made = {}
    for name in ("heavy", "light"):
        made[name], entry = keys.make(name)
        keys.add(tmp_path / "keys", entry)
    (tmp_path / "policy").write_text(POLICY)
    return server(
        repository, f"--auth-keys={tmp_path / 'keys'}", f"--auth-policy={tmp_path / 'policy'}", "--log-access=true"
    ), made


def test_of_two_keys_with_weights_3_and_1_the_one_gets_three_runs_for_each_of_the_other(
    weighing: tuple[Server, dict[str, str]],
) -> None:
    server, secrets = weighing
    with ExitStack() as stack:
        heavy, light = (stack.enter_context(stub_of(server, secrets[name])) for name in ("heavy", "light"))
        busy = occupy(server, light, duration_ms=10 * 60 * 1000)
        # In order of arrival all of the light ones would be first.
        calls = [light.ModelInfer.future(slow(rows(seed), 0, id=f"light {seed}")) for seed in range(EACH)]
        wait_for(server, "slow", lambda now: now.queue_rows == EACH, 30)
        calls += [heavy.ModelInfer.future(slow(rows(seed), 0, id=f"heavy {seed}")) for seed in range(EACH)]
        wait_for(server, "slow", lambda now: now.queue_rows == 2 * EACH, 30)
        busy.cancel()
        assert {code_of(one) for one in calls} == {grpc.StatusCode.OK}

    def ended() -> list[str]:
        """Whose requests ended, in order."""
        lines = [one.get("request_id", "") for one in server.log() if one["logger"] == "inferd.access"]
        return [id.partition(" ")[0] for id in lines if id]

    eventually(lambda: len(ended()) == 2 * EACH)
    assert 22 <= ended()[:32].count("heavy") <= 26
