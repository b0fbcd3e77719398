"""`python -m bench compare` as it is run: real servers, real load, a table and a file at the end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.result import Comparison

ROOT = Path(__file__).resolve().parents[2]


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *words],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compare") / "result.json"


@pytest.fixture(scope="module")
def run(result: Path) -> subprocess.CompletedProcess[str]:
    return bench(
        *("compare", "--peers=inferd,nghttpd,grpc-aio", "--works=mlp", "--rounds=1", "--seconds=0.5"),
        f"--json={result}",
    )


def test_a_comparison_ends_with_figures_of_everybody_and_a_table(
    run: subprocess.CompletedProcess[str], result: Path
) -> None:
    assert run.returncode == 0, run.stderr
    (work,) = Comparison.model_validate_json(result.read_text()).works
    assert work.name == "mlp"
    for entrant in work.entrants:
        # Measured also says that answers were right before and after, for those that infer.
        assert (entrant.status, entrant.reason) == ("measured", None), entrant
        (turn,) = entrant.turns
        assert turn.failures == ()
        assert turn.requests_per_second
        assert turn.cpu_us_per_request
        assert turn.p50_ns
        assert turn.p99_ns
        assert turn.alone_p50_ns
        assert turn.request_bytes_per_cpu_second
        assert turn.rss_bytes
        assert entrant.name in run.stdout
    assert {"nghttpd", "grpc-aio", "inferd (grpcio)"} <= {entrant.name for entrant in work.entrants}
    assert {("inferd (grpcio)", "nghttpd"), ("inferd (grpcio)", "grpc-aio")} <= {
        (ratio.subject, ratio.against) for ratio in work.ratios
    }


def test_its_file_has_the_versions_of_everybody(run: subprocess.CompletedProcess[str], result: Path) -> None:
    versions = Comparison.model_validate_json(result.read_text()).versions
    assert versions["nghttpd"]["nghttp2"][0].isdigit()
    assert versions["grpc-aio"]["grpcio"]
    assert versions["inferd (grpcio)"]["onnxruntime"]


def test_its_file_gives_the_same_goals_again(run: subprocess.CompletedProcess[str], result: Path) -> None:
    again = bench("goals", str(result))
    assert again.returncode == 0, again.stderr
    assert again.stdout.strip()
    assert run.stdout.endswith(again.stdout)


def test_a_peer_that_nobody_knows_is_refused_in_one_line() -> None:
    done = bench("compare", "--peers=inferd,tensorflow")
    assert done.returncode == 2
    assert done.stderr.startswith("bench: --peers: there is no 'tensorflow', only ")
    assert done.stderr.count("\n") == 1
