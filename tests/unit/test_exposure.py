"""`inferd check --security`: what is told of settings, and what is warned of."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from authority import Authority
from click.testing import CliRunner

from inferd.auth import keys
from inferd.cli import main
from inferd.config import Settings, load
from inferd.exposure import report


def told(flags: dict[str, str | None]) -> dict[str, list[str]]:
    """The lines by their titles."""
    out = io.StringIO()
    settings: Settings = load(flags, {}).settings
    assert report(settings, out) == 0
    found: dict[str, list[str]] = {}
    for line in out.getvalue().splitlines():
        if line.startswith(" "):
            found[next(reversed(found))].append(line.strip())
        else:
            found[line] = []
    return found


def test_an_open_server_is_said_to_be_open() -> None:
    said = told({})
    assert said["ports"][0] == "gRPC     0.0.0.0 8001 (every interface): no TLS; whoever connects"
    assert said["who may what"][0].startswith("anyone who can connect: every method, every model")
    assert "whoever reaches the gRPC port may run every model" in said["to think about"][0]


def test_of_a_server_for_this_machine_alone_there_is_nothing_to_think_about() -> None:
    said = told({"host": "127.0.0.1"})
    assert "this machine" in said["ports"][0]
    assert "to think about" not in said


def test_rules_and_the_names_of_keys_are_told_and_no_key_is(tmp_path: Path) -> None:
    secret, entry = keys.make("alice")
    keys.add(tmp_path / "keys", entry)
    (tmp_path / "policy").write_text("rules: [{who: [anyone], may: [infer], models: [a]}]\nweights: {'key:alice': 3}")
    said = told({"auth.keys": str(tmp_path / "keys"), "auth.policy": str(tmp_path / "policy")})
    text = str(said)
    assert "anyone: infer, for models a" in said["who may what"]
    assert "key:alice: weighs 3 where callers take turns, others 1" in said["who may what"]
    assert "there are API keys for: alice" in said["who may what"]
    assert secret not in text
    assert entry.digest.hex() not in text
    assert [line.partition(":")[0] for line in said["to think about"]] == [
        "keys and tokens cross the network unencrypted",
        "without credentials anyone may",
    ]


def test_a_second_door_beside_client_certificates_is_told(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.sign("server")
    flags: dict[str, str | None] = {
        "tls.certificate": str(pair.certificate),
        "tls.key": str(pair.key),
        "tls.client_ca": str(authority.certificate),
        "tls.client_auth": "required",
    }
    assert "the HTTP port runs models too" in told(flags)["to think about"][0]
    assert "to think about" not in told({**flags, "tls.http": "true"})
    assert "TLS 1.2 and newer, client certificates" in told(flags)["ports"][0]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("models.control_mode", "load and unload models"),
        ("shared_memory.enabled", "shared memory"),
        ("control.log_settings", "change what is logged"),
        ("control.trace_settings", "change what is traced"),
    ],
)
def test_what_clients_can_change_is_off_unless_asked_for_and_then_warned_of(setting: str, said: str) -> None:
    assert all("off" in line for line in told({})["what clients can change"][:4])
    warned = told({setting: "explicit" if setting.startswith("models") else "true"})["to think about"]
    assert any(said in line for line in warned)


def test_the_command_needs_no_models_and_ends_as_the_start_would(tmp_path: Path) -> None:
    file = tmp_path / "inferd.yaml"
    file.write_text("grpc: {port: 7001}")
    done = CliRunner().invoke(main, ["check", "--security", "--config", str(file)])
    assert done.exit_code == 0
    assert " 7001 " in done.stdout
    file.write_text(f"auth: {{keys: {tmp_path / 'nowhere'}}}")
    done = CliRunner().invoke(main, ["check", "--security", "--config", str(file)])
    assert done.exit_code == 2
    assert "auth.keys" in done.stderr
