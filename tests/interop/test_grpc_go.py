"""The client of gRPC for Go runs gRPC's interop cases, against the native transport and against grpc.aio's server.

All of the client's cases are here but those that need Google's credentials. Its `timeout_on_sleeping_server` and
`cancel_after_begin` may end before the server has heard of them; tests/unit/test_native_calls.py has them for sure.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import serving

CASES = (
    "cancel_after_begin",
    "cancel_after_first_response",
    "channel_soak",
    "client_streaming",
    "custom_metadata",
    "empty_stream",
    "empty_unary",
    "large_unary",
    "orca_oob",
    "orca_per_rpc",
    "pick_first_unary",
    "ping_pong",
    "rpc_soak",
    "server_streaming",
    "special_status_message",
    "status_code_and_message",
    "timeout_on_sleeping_server",
    "unimplemented_method",
    "unimplemented_service",
)
TLS_CASES = (
    "cancel_after_first_response",
    "channel_soak",
    "custom_metadata",
    "large_unary",
    "ping_pong",
    "special_status_message",
)
COMPRESSED_CASES = (
    "client_compressed_streaming",
    "client_compressed_unary",
    "server_compressed_streaming",
    "server_compressed_unary",
)
# A loaded machine may take its time: how long an answer took is not what is asked here.
SOAK = (
    "--soak_iterations=50", "--soak_num_threads=5", "--soak_overall_timeout_seconds=60",
    "--soak_per_iteration_max_acceptable_latency_ms=60000",
)  # fmt: skip
MORE = {
    "orca_oob": ('--service_config_json={"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}',),
    "orca_per_rpc": ('--service_config_json={"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}',),
    "rpc_soak": SOAK,
    "channel_soak": SOAK,
}


@pytest.fixture(scope="module")
def port(transport: str, stubs: Path) -> Iterator[int]:
    with serving(transport, stubs) as found:
        yield found


@pytest.fixture(scope="module")
def tls_port(transport: str, stubs: Path, certificate: tuple[Path, Path]) -> Iterator[int]:
    with serving(transport, stubs, *certificate) as found:
        yield found


def run(client: Path, port: int, case: str, *more: str) -> None:
    done = subprocess.run(
        [client, "--server_host=127.0.0.1", f"--server_port={port}", f"--test_case={case}", *MORE.get(case, ()), *more],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("case", CASES)
def test_the_case_passes(case: str, interop_client: Path, port: int) -> None:
    run(interop_client, port, case)


@pytest.mark.parametrize("case", TLS_CASES)
def test_the_case_passes_over_tls(
    case: str, interop_client: Path, tls_port: int, certificate: tuple[Path, Path]
) -> None:
    run(
        interop_client, tls_port, case, "--use_tls", "--use_test_ca", f"--ca_file={certificate[0]}",
        "--server_host_override=localhost",
    )  # fmt: skip


@pytest.mark.parametrize("case", COMPRESSED_CASES)
def test_the_case_with_compressed_messages_passes(case: str, compressed_client: Path, port: int) -> None:
    run(compressed_client, port, case)
