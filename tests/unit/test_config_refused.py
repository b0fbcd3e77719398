"""Settings: what is refused, from every place, and in which words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from inferd.config import Settings, leaves, load
from inferd.config.names import NOT_BUILT
from inferd.errors import SettingsError, StartError

WriteYaml = Callable[[str], Path]


@pytest.fixture
def write_yaml(tmp_path: Path) -> WriteYaml:
    def write(text: str) -> Path:
        file = tmp_path / "inferd.yaml"
        file.write_text(text, encoding="utf-8")
        return file

    return write


def refusal(
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    models_path: str | None = None,
) -> str:
    with pytest.raises(SettingsError) as caught:
        load(flags or {}, environ or {}, models_path=models_path)
    return str(caught.value)


def outcome(flags: Mapping[str, object], environ: Mapping[str, str] | None = None) -> str:
    try:
        load(flags, environ or {})
    except StartError as err:
        return str(err)
    return "loaded"


def refused_yaml(file: Path) -> str:
    return refusal({"config": str(file)}).replace(str(file), "FILE")


# --- the file ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "# only a comment\n", "grpc:\n", "---\n"])
def test_an_empty_file_or_section_sets_nothing(write_yaml: WriteYaml, text: str) -> None:
    assert load({"config": str(write_yaml(text))}, {}).settings == Settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grpc: {prot: 1}", "grpc.prot (FILE): unknown key; did you mean grpc.port?"),
        ("grcp: {port: 1}", "grcp (FILE): unknown key; did you mean grpc?"),
        ("grpc.port: 1", "grpc.port (FILE): unknown key; write it nested, grpc: {port: }"),
        ("qqq: {a: {b: 1}}", "qqq.a.b (FILE): unknown key"),
        ("1: 2", "1 (FILE): unknown key"),
        ('"a\\nb": 2', "a b (FILE): unknown key"),
        (
            "inference: {timeout: 1}",
            "inference.timeout (FILE): unknown key; did you mean inference.timeout_ms?",
        ),
        (
            "monitoring: {metrics_port: 1}",
            "monitoring.metrics_port (FILE): unknown key; did you mean metrics.port?",
        ),
        ("grpc: 8001", "grpc (FILE): expected a section with keys, got 8001"),
        ("- grpc", "FILE: expected sections and keys, got ['grpc']"),
        ("grpc: {port: '1'}", "grpc.port (FILE): expected integer from 0 to 65535, got '1'"),
        ("grpc: {port: true}", "grpc.port (FILE): expected integer from 0 to 65535, got true"),
        ("grpc: {port: }", "grpc.port (FILE): expected integer from 0 to 65535, got nothing"),
        ("grpc: {reflection: 1}", "grpc.reflection (FILE): expected true or false, got 1"),
        ("log: {level: off}", "log.level (FILE): expected debug, info, warning or error, got false"),
        ("models: {path: ''}", "models.path (FILE): expected path, got ''"),
        ("threads: {cpus: .nan}", "threads.cpus (FILE): expected number above 0 up to 4096, got nan"),
        (
            "grpc: {port: 1,\n port: 2}",
            "FILE: is not valid YAML in line 2: the key 'port' stands here a second time",
        ),
    ],
)
def test_a_mistake_in_the_file_is_named_in_one_line(write_yaml: WriteYaml, text: str, message: str) -> None:
    assert refused_yaml(write_yaml(text)) == message.replace("FILE", "file FILE")


def test_broken_yaml_is_reported_with_its_line(write_yaml: WriteYaml) -> None:
    assert refused_yaml(write_yaml("grpc:\n  port: [")).startswith("file FILE: is not valid YAML in line 2: ")


@pytest.mark.parametrize("text", ["a: 2020-13-45", "a: !!bool maybe", "a: !!timestamp x", "[" * 5000])
def test_a_value_that_yaml_itself_cannot_read_is_refused(write_yaml: WriteYaml, text: str) -> None:
    assert refused_yaml(write_yaml(text)).startswith("file FILE: is not valid YAML")


@pytest.mark.parametrize("text", ["a: &loop {b: *loop}", "grpc: &loop {port: *loop}", "grpc: &loop {grpc: *loop}"])
def test_a_mapping_that_contains_itself_is_refused(write_yaml: WriteYaml, text: str) -> None:
    assert "FILE" in refused_yaml(write_yaml(text))


def test_a_control_character_in_the_file_is_reported_in_one_line(write_yaml: WriteYaml) -> None:
    assert "\n" not in refused_yaml(write_yaml("grpc: \x07"))


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "binary.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    assert refusal({"config": str(file)}) == f"file {file}: is not UTF-8 text"


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "none.yaml"
    assert refusal({}, {"INFERD_CONFIG": str(file)}) == f"file {file}: cannot be read: No such file or directory"


@given(st.text(max_size=40))
def test_any_text_as_a_file_either_loads_or_is_a_start_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(text, encoding="utf-8", errors="replace")
    assert "\n" not in outcome({"config": str(file)})


@given(variable=st.sampled_from([leaf.variable for leaf in leaves()]), value=st.text(max_size=20))
def test_any_text_in_a_variable_either_loads_or_is_a_start_error(variable: str, value: str) -> None:
    assert "\n" not in outcome({}, {variable: value})


# --- the environment and the flags -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("INFERD_GRPC_PROT", "environment INFERD_GRPC_PROT: no such setting; did you mean INFERD_GRPC_PORT?"),
        (
            "INFERD_MODEL_PATH",
            "environment INFERD_MODEL_PATH: no such setting; did you mean INFERD_MODELS_PATH?",
        ),
        (
            "INFERD_MAX_BATCH_SIZE",
            "environment INFERD_MAX_BATCH_SIZE: no such setting; did you mean INFERD_BATCHING_MAX_BATCH_SIZE?",
        ),
        ("INFERD_QQQQ", "environment INFERD_QQQQ: no such setting"),
    ],
)
def test_an_unknown_variable_is_refused_with_what_was_meant(variable: str, message: str) -> None:
    assert refusal({}, {variable: "1"}) == message


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("INFERD_PORT", "tcp://10.0.0.1:8001"),
        ("INFERD_SERVICE_HOST", "10.0.0.1"),
        ("INFERD_SERVICE_PORT", "8001"),
        ("INFERD_SERVICE_PORT_GRPC_INFER", "8001"),
        ("INFERD_PORT_8001_TCP", "tcp://10.0.0.1:8001"),
        ("INFERD_PORT_8001_TCP_ADDR", "10.0.0.1"),
        ("INFERD_HEADLESS_SERVICE_HOST", "10.0.0.1"),
        ("INFERD_GRPC_PORT", "tcp://10.0.0.1:8001"),
        ("INFERD_GRPC_PORT_8001_TCP_PROTO", "tcp"),
    ],
)
def test_the_links_of_a_kubernetes_service_are_ignored(variable: str, value: str) -> None:
    assert load({}, {variable: value}) == load({}, {})


def test_a_value_of_the_wrong_type_names_its_variable() -> None:
    message = "grpc.port (environment INFERD_GRPC_PORT): expected integer from 0 to 65535, got 'eight'"
    assert refusal({}, {"INFERD_GRPC_PORT": "eight"}) == message


def test_a_value_of_the_wrong_type_names_its_flag() -> None:
    message = "log.format (flag --log-format): expected human or json, got 'xml'"
    assert refusal({"log.format": "xml"}) == message


@pytest.mark.parametrize("text", ["true", "YES", "on", "1"])
def test_a_switch_in_text_is_on_in_many_spellings(text: str) -> None:
    assert load({}, {"INFERD_METRICS_ENABLED": text}).settings.metrics.enabled is True


@pytest.mark.parametrize("text", ["false", "NO", "off", "0"])
def test_a_switch_in_text_is_off_in_many_spellings(text: str) -> None:
    assert load({}, {"INFERD_METRICS_ENABLED": text}).settings.metrics.enabled is False


def test_a_long_value_is_cut_in_the_message() -> None:
    assert len(refusal({"log.format": "x" * 10_000})) < 200


def test_an_unknown_flag_is_refused_with_what_was_meant() -> None:
    assert refusal({"grpc.prot": "1"}) == "flag --grpc-prot: no such flag; did you mean --grpc-port?"


@pytest.mark.parametrize("value", ["-1", "65536", "8001.5", "", "0x10"])
def test_a_port_out_of_range_is_refused(value: str) -> None:
    assert "expected integer from 0 to 65535" in refusal({"grpc.port": value})


@pytest.mark.parametrize("value", ["127.0.0.1:8001", "[::1]", "http://x", "a b", ""])
def test_a_host_with_more_than_a_host_in_it_is_refused(value: str) -> None:
    assert "expected IP address or host name, without a port" in refusal({"host": value})


@pytest.mark.parametrize("value", ["0.0.0.0", "::", "::1", "localhost", "inferd.example"])
def test_an_address_or_a_name_is_a_host(value: str) -> None:
    assert load({"host": value}, {}).settings.host == value


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "auto"])
def test_a_cpu_count_that_is_no_positive_number_is_refused(value: str) -> None:
    assert "expected number above 0" in refusal({"threads.cpus": value})


# --- contradictions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            {"grpc.port": "8080"},
            "grpc.port and http.port are both 8080 (grpc.port: flag --grpc-port; http.port: default)",
        ),
        (
            {"http.port": "7", "metrics.port": "7"},
            "http.port and metrics.port are both 7 (http.port: flag --http-port; metrics.port: flag --metrics-port)",
        ),
        (
            {"batching.max_queue_rows": "63"},
            "batching.max_queue_rows 63 is less than batching.max_batch_size 64, so no batch could ever fill "
            "(batching.max_queue_rows: flag --batching-max-queue-rows; batching.max_batch_size: default)",
        ),
        (
            {"grpc.max_message_bytes": "2048", "batching.max_queue_bytes": "2047"},
            "batching.max_queue_bytes 2047 is less than grpc.max_message_bytes 2048, "
            "so the largest message could never be queued (batching.max_queue_bytes: "
            "flag --batching-max-queue-bytes; grpc.max_message_bytes: flag --grpc-max-message-bytes)",
        ),
        (
            {"inference.timeout_ms": "5", "batching.max_queue_delay_us": "5000"},
            "batching.max_queue_delay_us 5000 is not shorter than inference.timeout_ms 5, "
            "so requests would expire while they wait (batching.max_queue_delay_us: "
            "flag --batching-max-queue-delay-us; inference.timeout_ms: flag --inference-timeout-ms)",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused_with_both_origins(flags: dict[str, str], message: str) -> None:
    assert refusal(flags) == message


@pytest.mark.parametrize(
    "flags",
    [
        {"grpc.port": "0", "http.port": "0", "metrics.port": "0"},
        {"metrics.enabled": "false", "http.port": "9090"},
        {"inference.timeout_ms": "0", "batching.max_queue_delay_us": "5000"},
    ],
)
def test_settings_that_only_look_contradictory_are_accepted(flags: dict[str, str]) -> None:
    assert load(flags, {}).settings


def test_a_contradiction_is_also_refused_without_the_loader() -> None:
    with pytest.raises(ValidationError, match="are both 8001"):
        Settings.model_validate({"http": {"port": 8001}})


# --- not built yet -----------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", NOT_BUILT)
def test_what_is_not_built_is_refused_in_the_file(write_yaml: WriteYaml, prefix: str) -> None:
    tree: object = {"key": 1}
    for part in reversed(prefix.split(".")):
        tree = {part: tree}
    text = f"{prefix}.key (file FILE): {NOT_BUILT[prefix]} is not built yet; remove this setting"
    assert refused_yaml(write_yaml(yaml.safe_dump(tree))) == text


@pytest.mark.parametrize("prefix", NOT_BUILT)
def test_what_is_not_built_is_refused_in_the_environment(prefix: str) -> None:
    variable = f"INFERD_{prefix.replace('.', '_').upper()}_KEY"
    text = f"{prefix}.key (environment {variable}): {NOT_BUILT[prefix]} is not built yet; remove this setting"
    assert refusal({}, {variable: "1"}) == text


@pytest.mark.parametrize("prefix", NOT_BUILT)
def test_what_is_not_built_is_refused_as_a_flag(prefix: str) -> None:
    flag = f"--{prefix.replace('.', '-').replace('_', '-')}-key"
    text = f"{prefix}.key (flag {flag}): {NOT_BUILT[prefix]} is not built yet; remove this setting"
    assert refusal({f"{prefix}.key": "1"}) == text


def test_the_value_of_a_refused_setting_is_not_repeated() -> None:
    assert "hunter2" not in refusal({}, {"INFERD_REDIS_PASSWORD": "hunter2"})


def test_a_refused_setting_is_refused_even_when_it_is_empty() -> None:
    assert "is not built yet" in refusal({}, {"INFERD_REDIS_URL": ""})
