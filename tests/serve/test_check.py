"""``inferd check`` as a person runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import onnx_models
import pytest


def check(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "inferd", "check", *map(str, arguments)]
    environment = os.environ | variables
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    onnx_models.write(tmp_path, "mlp", onnx_models.mlp())
    onnx_models.write(tmp_path, "coupled", onnx_models.coupled())
    return tmp_path


def test_security_shows_no_credentials() -> None:
    done = check(
        "--security", INFERD_TRACING_ENABLED="true", INFERD_TRACING_ENDPOINT="http://user:secret-word@host:4317"
    )
    assert done.returncode == 0, done.stderr
    assert "secret-word" not in done.stdout + done.stderr


def test_every_model_is_reported_with_its_tensors_batching_and_run_times(repository: Path) -> None:
    done = check(repository)
    assert done.returncode == 0, done.stderr
    assert "model mlp version 1" in done.stdout
    assert "batchable  yes, up to 64 rows" in done.stdout
    assert "ms at 1," in done.stdout
    assert "ms at 32" in done.stdout
    assert "batchable  no: rows run together differ from rows run alone" in done.stdout
    assert "2 model version(s) can be served" in done.stdout


def test_the_report_is_also_json(repository: Path) -> None:
    found = json.loads(check(repository, "--json").stdout)
    by_name = {one["model"]: one for one in found}
    assert by_name["mlp"]["batched"]
    assert not by_name["coupled"]["batched"]
    assert set(by_name["mlp"]["run_ms"]) == {"1", "8", "32"}
    assert len(by_name["mlp"]["sha256"]) == 64


def test_sizes_that_there_was_no_time_for_are_named_with_what_gives_them_time(repository: Path) -> None:
    hint = "set INFERD_WARMUP_BUDGET_MS"
    assert f"no time to measure 8, 32: {hint}" in check(repository, INFERD_WARMUP_BUDGET_MS="0").stdout
    assert hint not in check(repository, INFERD_WARMUP_BUDGET_MS="20000").stdout


def test_a_single_file_can_be_checked(tmp_path: Path) -> None:
    onnx.save(onnx_models.mlp(), tmp_path / "mine.onnx")
    done = check(tmp_path / "mine.onnx")
    assert done.returncode == 0
    assert "model mine version 1" in done.stdout


def test_a_broken_model_gives_exit_code_2_and_one_line_that_names_it(repository: Path) -> None:
    (repository / "bad" / "1").mkdir(parents=True)
    (repository / "bad" / "1" / "model.onnx").write_bytes(b"no model")
    done = check(repository)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("inferd: model 'bad': ")
    assert "model mlp version 1" in done.stdout


def test_a_config_that_contradicts_the_model_names_both_sides(repository: Path) -> None:
    (repository / "mlp" / "config.pbtxt").write_text('input [ { name: "nope" data_type: TYPE_FP32 dims: [ 4 ] } ]')
    done = check(repository)
    assert done.returncode == 2
    assert "'nope'" in done.stderr
    assert "'x'" in done.stderr


def test_a_declared_batch_that_the_probe_disproves_is_a_warning_with_a_remedy(repository: Path) -> None:
    (repository / "coupled" / "config.pbtxt").write_text("max_batch_size: 8")
    done = check(repository)
    assert done.returncode == 0
    assert "warning    config.pbtxt says max_batch_size: 8, but rows run together differ" in done.stdout
    assert "set max_batch_size: 0" in done.stdout


def test_a_path_that_is_not_there_gives_exit_code_2(tmp_path: Path) -> None:
    done = check(tmp_path / "nothing")
    assert done.returncode == 2
    assert "no such file or folder" in done.stderr
