"""The command line: what it prints, and the exit code of every way to end."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from types import ModuleType

import grpc
import pytest
from click.testing import CliRunner, Result
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer

from inferd.cli import main
from inferd.config import Settings, leaves
from inferd.errors import StartError
from inferd.version import version

Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    for leaf in leaves():
        monkeypatch.delenv(leaf.variable, raising=False)

    def invoke(*args: str, env: dict[str, str] | None = None) -> Result:
        return CliRunner().invoke(main, args, env=env, prog_name="inferd")

    return invoke


# --- settings ----------------------------------------------------------------------------------------


def columns(output: str) -> dict[str, tuple[str, str]]:
    rows = (line.split("\t") for line in output.splitlines())
    return {path.strip(): (value.strip(), origin) for path, value, origin in rows}


def test_print_config_shows_every_setting_once(run: Run) -> None:
    result = run("serve", "--print-config")
    assert list(columns(result.stdout)) == [leaf.path for leaf in leaves()]
    assert result.exit_code == 0


def test_print_config_shows_who_decided(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "inferd.yaml"
    file.write_text("log: {level: warning}")
    result = run(
        *("serve", "models", "--config", str(file), "--grpc-reflection", "false", "--print-config"),
        env={"INFERD_HTTP_PORT": "7000"},
    )
    shown = columns(result.stdout)
    assert {path: shown[path] for path in ("models.path", "log.level", "grpc.reflection", "http.port")} == {
        "models.path": ("models", "argument PATH"),
        "log.level": ("warning", f"file {file}"),
        "grpc.reflection": ("false", "flag --grpc-reflection"),
        "http.port": ("7000", "environment INFERD_HTTP_PORT"),
    }


def test_print_config_shows_no_credentials(run: Run) -> None:
    result = run(
        "serve", "--tracing-endpoint", "http://user:secret-word@host:4318/v1/traces?key=secret-word", "--print-config"
    )
    assert result.exit_code == 0
    assert "http://***@host:4318/v1/traces?key=***" in result.stdout
    assert "secret-word" not in result.stdout


def test_print_config_aligns_its_columns(run: Run) -> None:
    lines = run("serve", "--print-config").stdout.splitlines()
    assert len({tuple(len(cell) for cell in line.split("\t")[:2]) for line in lines}) == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ("serve", "--grpc-port", "x"),
            "grpc.port (flag --grpc-port): expected integer from 0 to 65535, got 'x'",
        ),
        (("serve", "--grpc-prot", "1"), "flag --grpc-prot: no such flag; did you mean --grpc-port?"),
        (("serve", "--model-path", "x"), "flag --model-path: no such flag; did you mean --models-path?"),
        (
            ("serve", "--cache-ttl", "1"),
            "cache.ttl (flag --cache-ttl): the response cache is not built yet; remove this setting",
        ),
        (
            ("serve", "--redis-host=x"),
            "redis.host (flag --redis-host): the response cache in Redis is not built yet; remove this setting",
        ),
        (("serve", "--config", "/nowhere"), "file /nowhere: cannot be read: No such file or directory"),
        (
            ("serve",),
            "models.path: not set; name a model repository or an .onnx file: inferd serve PATH",
        ),
    ],
)
def test_a_start_error_is_one_line_and_exit_code_2(run: Run, args: tuple[str, ...], message: str) -> None:
    result = run(*args)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"inferd: {message}\n")


def test_every_setting_is_in_the_help_of_serve(run: Run) -> None:
    text = run("serve", "--help").stdout
    assert [leaf.flag for leaf in leaves() if leaf.flag not in text] == []


@pytest.mark.parametrize("args", [(), ("serv",), ("health", "--timeout-ms", "0"), ("check",)])
def test_wrong_usage_is_exit_code_2(run: Run, args: tuple[str, ...]) -> None:
    assert run(*args).exit_code == 2


def test_the_version_is_printed(run: Run) -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"inferd {version()}\n")


# --- handing over ------------------------------------------------------------------------------------


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What stands where inferd.app is: these tests are about argv and exit codes, not about a server."""
    module = ModuleType("inferd.app")
    monkeypatch.setitem(sys.modules, "inferd.app", module)
    return module


def test_serve_hands_over_the_settings_and_returns_the_exit_code(run: Run, server: ModuleType) -> None:
    started: list[Settings] = []

    def starts(settings: Settings) -> int:
        started.append(settings)
        return 7

    server.serve = starts  # type: ignore[attr-defined]
    result = run("serve", "models", "--grpc-port", "0")
    assert (result.exit_code, started[0].models.path, started[0].grpc.port) == (7, Path("models"), 0)


def test_ctrl_c_is_exit_code_130_without_a_traceback(run: Run, server: ModuleType) -> None:
    def interrupted(settings: Settings) -> int:
        raise KeyboardInterrupt

    server.serve = interrupted  # type: ignore[attr-defined]
    result = run("serve", "models")
    assert (result.exit_code, result.stdout, result.stderr.strip()) == (130, "", "")


def test_a_start_error_with_line_breaks_is_still_one_line(run: Run, server: ModuleType) -> None:
    def fails(settings: Settings) -> int:
        raise StartError("the port\nis   taken")

    server.serve = fails  # type: ignore[attr-defined]
    result = run("serve", "models")
    assert (result.exit_code, result.stderr) == (2, "inferd: the port is taken\n")


def test_check_hands_over_path_settings_and_form(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Path, Path | None, bool]] = []

    def checks(path: Path, settings: Settings, out_json: bool) -> int:
        calls.append((path, settings.models.path, out_json))
        return 1

    module = ModuleType("inferd.check")
    module.check = checks  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "inferd.check", module)
    assert run("check", "models", "--json").exit_code == 1
    assert calls == [(Path("models"), Path("models"), True)]


# --- health ------------------------------------------------------------------------------------------


@pytest.fixture
def socket() -> Iterator[str]:
    # Not tmp_path: the name of a unix socket has at most 107 bytes.
    with tempfile.TemporaryDirectory() as folder:
        yield f"unix:{folder}/grpc"


@pytest.fixture
def serving(socket: str) -> Iterator[Callable[[health_pb2_grpc.HealthServicer | None], None]]:
    with ThreadPoolExecutor(max_workers=1) as pool:
        server = grpc.server(pool)
        server.add_insecure_port(socket)

        def start(servicer: health_pb2_grpc.HealthServicer | None) -> None:
            if servicer is not None:
                health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
            server.start()

        yield start
        server.stop(grace=None).wait()


Serving = Callable[[health_pb2_grpc.HealthServicer | None], None]


@pytest.mark.parametrize(
    ("args", "line", "code"),
    [
        ((), "readiness SERVING", 0),
        (("--service", ""), "server SERVING", 0),
        (("--service", "asleep"), "asleep NOT_SERVING", 1),
        (("--service", "nobody"), "nobody SERVICE_UNKNOWN", 1),
    ],
)
def test_health_prints_the_status_and_exits_by_it(
    run: Run, socket: str, serving: Serving, args: tuple[str, ...], line: str, code: int
) -> None:
    servicer = HealthServicer()
    servicer.set("readiness", health_pb2.HealthCheckResponse.SERVING)
    servicer.set("asleep", health_pb2.HealthCheckResponse.NOT_SERVING)
    serving(servicer)
    result = run("health", "--address", socket, "--timeout-ms", "10000", *args)
    assert (result.exit_code, result.stdout, result.stderr) == (code, f"{line}\n", "")


def test_a_server_without_a_health_service_is_not_serving(run: Run, socket: str, serving: Serving) -> None:
    serving(None)
    result = run("health", "--address", socket, "--timeout-ms", "10000")
    assert (result.exit_code, result.stdout) == (1, "readiness UNIMPLEMENTED\n")


def test_a_server_that_is_not_there_is_exit_code_2_in_one_line(run: Run, socket: str) -> None:
    result = run("health", "--address", socket)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"inferd: {socket} cannot be reached: ")
    assert result.stderr.count("\n") == 1


def test_a_server_that_does_not_answer_is_exit_code_2(run: Run, socket: str, serving: Serving) -> None:
    released = Event()

    class Stuck(health_pb2_grpc.HealthServicer):
        def Check(self, request: object, context: object) -> health_pb2.HealthCheckResponse:
            released.wait()
            return health_pb2.HealthCheckResponse()

    serving(Stuck())
    result = run("health", "--address", socket, "--timeout-ms", "300")
    released.set()
    assert (result.exit_code, result.stderr) == (2, f"inferd: {socket} did not answer within 300 ms\n")


def test_a_health_check_goes_past_the_proxy_of_the_environment(
    run: Run, socket: str, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    servicer = HealthServicer()
    servicer.set("readiness", health_pb2.HealthCheckResponse.SERVING)
    serving(servicer)
    assert run("health", "--address", socket, "--timeout-ms", "10000").exit_code == 0


def test_a_probe_imports_neither_the_settings_nor_anything_of_the_server() -> None:
    script = (
        "import sys; from inferd.cli import main\n"
        "try: main(['health', '--address', 'unix:/nowhere'])\n"
        "except SystemExit: pass\n"
        "heavy = {'pydantic', 'yaml', 'rich', 'numpy', 'onnxruntime', 'inferd.config'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "inferd", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"inferd {version()}\n"
