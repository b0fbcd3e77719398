"""Settings: how they are declared, which place decides, and the page that tells about them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from inferd.config import Leaf, Settings, leaves, load, sections
from inferd.config.docs import EXAMPLE, page
from inferd.config.names import ELSEWHERE, is_service_link, not_built, not_built_path

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"

ALL = list(leaves())
PATHS = [leaf.path for leaf in ALL]

# A good value for each leaf that is not its default; all of them together contradict nothing.
OTHER = {
    "host": "127.0.0.1",
    "transport": "grpcio",
    "grpc.port": 7001,
    "grpc.max_message_bytes": 4096,
    "grpc.max_metadata_bytes": 2048,
    "grpc.max_concurrent_streams": 3,
    "grpc.keepalive_time_ms": 4,
    "grpc.keepalive_timeout_ms": 5,
    "grpc.max_connection_idle_ms": 6,
    "grpc.max_connection_age_ms": 7,
    "grpc.max_connection_age_grace_ms": 8,
    "grpc.compression": "gzip",
    "grpc.handshake_timeout_ms": 9,
    "grpc.health_port": 7004,
    "grpc.unix_socket": "some.sock",
    "grpc.reuse_port": True,
    "grpc.reflection": False,
    "tls.certificate": "a.pem",
    "tls.key": "a.key",
    "tls.client_ca": "ca.pem",
    "tls.client_auth": "required",
    "tls.min_version": "1.3",
    "tls.http": True,
    "tls.metrics": True,
    "auth.policy": "policy.yaml",
    "auth.keys": "keys",
    "auth.jwks": "jwks.json",
    "auth.jwt_audience": "inferd",
    "auth.jwt_issuer": "issuer",
    "auth.jwt_leeway_ms": 11,
    "http.port": 7002,
    "http.inference": False,
    "http.status_page": False,
    "http.max_body_bytes": 5000,
    "metrics.enabled": False,
    "metrics.port": 7003,
    "metrics.dialect": "triton",
    "tracing.enabled": True,
    "tracing.endpoint": "http://127.0.0.1:7004",
    "tracing.protocol": "http",
    "tracing.sample_rate": 0.5,
    "tracing.max_pending": 7,
    "tracing.timeout_ms": 7006,
    "control.trace_settings": True,
    "log.access": True,
    "log.access_probes": True,
    "log.level": "debug",
    "log.format": "json",
    "control.log_settings": True,
    "models.path": "somewhere",
    "models.strict": False,
    "models.control_mode": "explicit",
    "models.load": "a,b",
    "models.settle_ms": 4,
    "models.rescan_ms": 5,
    "models.load_timeout_ms": 6,
    "models.trial": True,
    "models.follow_links": True,
    "batching.max_batch_size": 8,
    "batching.max_queue_delay_us": 100,
    "batching.max_queue_rows": 9,
    "batching.max_queue_bytes": 8192,
    "batching.priority_patience_ms": 10,
    "batching.inline_us": 0,
    "batching.learn": False,
    "inference.timeout_ms": 1000,
    "inference.hang_ms": 12,
    "inference.refuse_hopeless": False,
    "admission.max_requests": 7,
    "admission.max_bytes": 8,
    "admission.max_caller_requests": 9,
    "admission.message_timeout_ms": 11,
    "admission.memory_share": 0.5,
    "admission.large_bytes": 10,
    "shared_memory.enabled": True,
    "shared_memory.max_regions": 5,
    "device.cache_path": "cache",
    "device.fallback": "cpu",
    "device.kind": "cpu",
    "device.slot_memory_bytes": 1 << 30,
    "threads.cpus": 1.5,
    "warmup.budget_ms": 1,
    "drain.lame_duck_ms": 2,
    "drain.grace_ms": 3,
}

WriteYaml = Callable[[str], Path]


@pytest.fixture
def write_yaml(tmp_path: Path) -> WriteYaml:
    def write(text: str) -> Path:
        file = tmp_path / "inferd.yaml"
        file.write_text(text, encoding="utf-8")
        return file

    return write


def as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# --- the declaration ---------------------------------------------------------------------------------


@pytest.mark.parametrize("leaf", ALL, ids=PATHS)
def test_every_leaf_has_a_description_of_one_sentence(leaf: Leaf) -> None:
    assert leaf.description.endswith(".")
    assert leaf.description[0].isupper()


@pytest.mark.parametrize("leaf", ALL, ids=PATHS)
def test_every_default_is_a_value_that_the_leaf_accepts(leaf: Leaf) -> None:
    assert leaf.parse(leaf.default, strict=True) == leaf.default


def test_no_two_leaves_share_a_variable_or_a_flag() -> None:
    assert len({leaf.variable for leaf in ALL}) == len({leaf.flag for leaf in ALL}) == len(ALL)


@pytest.mark.parametrize("leaf", ALL, ids=PATHS)
def test_no_leaf_is_called_like_a_thing_that_is_not_built(leaf: Leaf) -> None:
    assert not_built(leaf.path) is None
    assert not_built_path(leaf.path.replace(".", "_")) is None


@pytest.mark.parametrize("leaf", ALL, ids=PATHS)
def test_no_leaf_is_taken_for_a_service_link(leaf: Leaf) -> None:
    assert not is_service_link(leaf.variable, as_text(OTHER[leaf.path]))


def test_every_name_from_elsewhere_leads_to_a_setting_or_to_something_not_built() -> None:
    assert [entry for entry in ELSEWHERE if entry.setting not in PATHS and not not_built(entry.setting)] == []


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().host = "::"


# --- precedence ------------------------------------------------------------------------------------


def test_with_nothing_set_every_setting_is_its_default() -> None:
    loaded = load({}, {})
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {"default"}


@pytest.mark.parametrize("leaf", ALL, ids=PATHS)
def test_every_leaf_can_be_set_by_its_variable(leaf: Leaf) -> None:
    environ = {other.variable: as_text(OTHER[other.path]) for other in ALL}
    loaded = load({}, environ)
    assert as_text(loaded.value(leaf.path)) == as_text(OTHER[leaf.path])
    assert loaded.origins[leaf.path] == f"environment {leaf.variable}"


@pytest.mark.parametrize("leaf", ALL, ids=PATHS)
def test_every_leaf_can_be_set_by_its_flag(leaf: Leaf) -> None:
    loaded = load({path: as_text(value) for path, value in OTHER.items()}, {})
    assert as_text(loaded.value(leaf.path)) == as_text(OTHER[leaf.path])
    assert loaded.origins[leaf.path] == f"flag {leaf.flag}"


@pytest.mark.parametrize("leaf", ALL, ids=PATHS)
def test_every_leaf_can_be_set_by_its_key_in_the_file(leaf: Leaf, write_yaml: WriteYaml) -> None:
    tree: dict[str, object] = {}
    for path, value in OTHER.items():
        section, _, name = path.rpartition(".")
        branch = tree.setdefault(section, {}) if section else tree
        assert isinstance(branch, dict)
        branch[name] = value
    file = write_yaml(yaml.safe_dump(tree))
    loaded = load({"config": str(file)}, {})
    assert as_text(loaded.value(leaf.path)) == as_text(OTHER[leaf.path])
    assert loaded.origins[leaf.path] == f"file {file}"


@given(file=st.booleans(), variable=st.booleans(), flag=st.booleans(), argument=st.booleans())
def test_the_last_place_that_sets_a_value_wins(
    tmp_path_factory: pytest.TempPathFactory, file: bool, variable: bool, flag: bool, argument: bool
) -> None:
    config = tmp_path_factory.getbasetemp() / "precedence.yaml"
    config.write_text("models: {path: from-file}\n" if file else "")
    loaded = load(
        {"config": str(config), "models.path": "from-flag" if flag else None},
        {"INFERD_MODELS_PATH": "from-variable"} if variable else {},
        models_path="from-argument" if argument else None,
    )
    places = [
        (argument, "from-argument", "argument PATH"),
        (flag, "from-flag", "flag --models-path"),
        (variable, "from-variable", "environment INFERD_MODELS_PATH"),
        (file, "from-file", f"file {config}"),
        (True, "None", "default"),
    ]
    expected = next((value, origin) for given, value, origin in places if given)
    assert (str(loaded.settings.models.path), loaded.origins["models.path"]) == expected


def test_a_place_decides_only_the_leaves_that_it_names(write_yaml: WriteYaml) -> None:
    file = write_yaml("batching: {max_batch_size: 8, learn: false}")
    loaded = load({"batching.learn": "true"}, {"INFERD_CONFIG": str(file)})
    assert (loaded.settings.batching.max_batch_size, loaded.settings.batching.learn) == (8, True)


def test_the_config_flag_wins_over_the_config_variable(write_yaml: WriteYaml) -> None:
    file = write_yaml("log: {level: error}")
    assert load({"config": str(file)}, {"INFERD_CONFIG": "/nowhere"}).settings.log.level == "error"


def test_an_empty_variable_counts_as_not_set() -> None:
    loaded = load({}, {"INFERD_GRPC_PORT": "", "INFERD_CONFIG": ""})
    assert loaded.origins["grpc.port"] == "default"


def test_variables_of_others_are_not_read() -> None:
    assert load({}, {"LOG_LEVEL": "error", "inferd_grpc_port": "1", "PATH": "/bin"}) == load({}, {})


def test_the_process_environment_is_read_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERD_GRPC_PORT", "7777")
    assert load({}).settings.grpc.port == 7777


def test_the_log_level_may_be_written_in_any_case() -> None:
    assert load({}, {"INFERD_LOG_LEVEL": "WARNING"}).settings.log.level == "warning"


# --- the page ------------------------------------------------------------------------------------------


def test_the_configuration_page_is_what_the_settings_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m inferd.config.docs > docs/configuration.md"


def test_the_example_on_the_page_loads(write_yaml: WriteYaml) -> None:
    loaded = load({"config": str(write_yaml(EXAMPLE))}, {})
    assert loaded.settings.inference.timeout_ms == 1000


@pytest.mark.parametrize("name", sections())
def test_every_section_is_on_the_page(name: str) -> None:
    assert f"\n### {name}\n" in page()
