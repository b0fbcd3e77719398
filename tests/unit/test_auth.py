"""Credentials and the policy: who is known, what is granted, and what a change of the files changes."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec

from inferd.auth import keys, policy
from inferd.auth.judge import Judge
from inferd.cli import main
from inferd.config import Auth
from inferd.errors import Forbidden, StartError, Unauthenticated

INFER = "/inference.GRPCInferenceService/ModelInfer"
HEALTH = "/grpc.health.v1.Health/Check"
AUDIENCE = "inferd.test"


class Signer:
    """Signs tokens, and writes the file by which they are checked."""

    def __init__(self, kid: str = "one") -> None:
        self._key, self._kid = ec.generate_private_key(ec.SECP256R1()), kid

    def public(self) -> dict[str, Any]:
        made = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self._key.public_key()))
        return {**made, "kid": self._kid, "alg": "ES256", "use": "sig"}

    def write(self, path: Path, *others: Signer) -> Path:
        path.write_text(json.dumps({"keys": [one.public() for one in (self, *others)]}))
        return path

    def token(self, **claims: Any) -> str:
        given = {"sub": "carol", "aud": AUDIENCE, "exp": time.time() + 600, **claims}
        kept = {name: value for name, value in given.items() if value is not None}
        return jwt.encode(kept, self._key, algorithm="ES256", headers={"kid": self._kid})


class Clock:
    """Time as the test has it."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 10.0  # each look at the files is a new one
        return self.now_s


def keys_of(path: Path, *names: str) -> list[str]:
    made = []
    for name in names:
        secret, entry = keys.make(name)
        keys.add(path, entry)
        made.append(secret)
    return made


def bearer(credential: str) -> dict[str, str]:
    return {"authorization": f"Bearer {credential}"}


def verdict(judge: Judge, headers: dict[str, str], path: str = INFER, names: tuple[str, ...] = ()) -> str:
    """Who the caller is, or why the call may not go on."""
    try:
        caller, _ = judge.admit(names, headers, path)
    except (Unauthenticated, Forbidden) as refusal:
        return type(refusal).__name__
    return caller.name or "somebody"


# --- keys --------------------------------------------------------------------------------------------


def test_a_key_is_known_by_either_header_and_no_other_text_is(tmp_path: Path) -> None:
    [alice] = keys_of(tmp_path / "keys", "alice")
    judge = Judge(Auth(keys=tmp_path / "keys"))
    assert verdict(judge, bearer(alice)) == "key:alice"
    assert verdict(judge, {"x-api-key": alice}) == "key:alice"
    wrong = ["", "alice", "alice.", alice[:-1], alice + "x", alice.replace("alice", "bob"), "." + alice, "\u00e9" * 40]
    for text in wrong:
        assert verdict(judge, {"x-api-key": text}) == "Unauthenticated", text
        assert verdict(judge, bearer(text)) == "Unauthenticated", text
    assert verdict(judge, {"authorization": f"Basic {alice}"}) == "Unauthenticated"
    assert verdict(judge, {}) == "Unauthenticated"


def test_a_name_may_have_two_keys_while_one_takes_the_others_place(tmp_path: Path) -> None:
    both = keys_of(tmp_path / "keys", "alice", "alice")
    judge = Judge(Auth(keys=tmp_path / "keys"))
    assert [verdict(judge, bearer(one)) for one in both] == ["key:alice"] * 2


def test_the_file_holds_no_key_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    done = CliRunner().invoke(main, ["key", "alice", "--file", str(path)])
    assert done.exit_code == 0
    secret = done.stdout.strip()
    assert secret.startswith("alice.")
    assert secret.partition(".")[2] not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert verdict(Judge(Auth(keys=path)), bearer(secret)) == "key:alice"


@pytest.mark.parametrize("line", ["alice", "alice:00:11", "a b:" + "00" * 16 + ":" + "00" * 32, "alice:x:y", ":::"])
def test_a_line_that_is_no_key_is_refused_by_its_number(tmp_path: Path, line: str) -> None:
    (tmp_path / "keys").write_text(f"# keys\n\n{line}\n")
    with pytest.raises(StartError, match=r"auth\.keys.*line 3"):
        Judge(Auth(keys=tmp_path / "keys"))


def test_a_changed_file_of_keys_holds_and_a_broken_one_does_not(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    [alice] = keys_of(path, "alice")
    judge = Judge(Auth(keys=path), now_s=Clock())
    before = judge.refresh()
    assert judge.refresh() is before
    [bob] = keys_of(path, "bob")
    assert verdict(judge, bearer(bob)) == "key:bob"
    path.write_text("nonsense")
    assert verdict(judge, bearer(alice)) == "key:alice"
    path.write_text("")
    assert verdict(judge, bearer(alice)) == "Unauthenticated"
    assert judge.refresh() is not before


# --- tokens ------------------------------------------------------------------------------------------


def test_a_token_is_known_by_its_subject_and_no_wrong_one_is(tmp_path: Path) -> None:
    signer, stranger = Signer(), Signer()
    jwks = signer.write(tmp_path / "jwks")
    judge = Judge(Auth(jwks=jwks, jwt_audience=AUDIENCE, jwt_issuer="us", jwt_leeway_ms=1000))
    assert verdict(judge, bearer(signer.token(iss="us"))) == "jwt:carol"
    head, body, signature = signer.token(iss="us").split(".")
    wrong = {
        "expired": signer.token(iss="us", exp=time.time() - 60),
        "no expiry": signer.token(iss="us", exp=None),
        "not yet": signer.token(iss="us", nbf=time.time() + 600),
        "for others": signer.token(iss="us", aud="others"),
        "for nobody": signer.token(iss="us", aud=None),
        "by others": signer.token(iss="them"),
        "of nobody": signer.token(iss="us", sub=None),
        "signed by others": stranger.token(iss="us"),
        "not signed": jwt.encode({"sub": "carol", "aud": AUDIENCE, "iss": "us", "exp": 9e9}, "", algorithm="none"),
        "signed by the public key": jwt.encode(
            {"sub": "carol", "aud": AUDIENCE, "iss": "us", "exp": 9e9}, "x" * 64, algorithm="HS256"
        ),
        "changed": f"{head}.{body[:-2]}AA.{signature}",
        "garbage": "a.b.c",
    }
    for name, token in wrong.items():
        assert verdict(judge, bearer(token)) == "Unauthenticated", name


def test_a_token_that_was_good_is_not_any_more_once_it_has_expired(tmp_path: Path) -> None:
    signer = Signer()
    judge = Judge(Auth(jwks=signer.write(tmp_path / "jwks"), jwt_audience=AUDIENCE, jwt_leeway_ms=0))
    token = signer.token(exp=time.time() + 1)
    caller, _ = judge.admit((), bearer(token), INFER)
    assert 0 < caller.until_ns - time.monotonic_ns() < 1_000_000_000
    end = time.monotonic() + 30
    while verdict(judge, bearer(token)) != "Unauthenticated":
        assert time.monotonic() < end


def test_keys_that_sign_may_change(tmp_path: Path) -> None:
    old, new = Signer("old"), Signer("new")
    jwks = old.write(tmp_path / "jwks")
    judge = Judge(Auth(jwks=jwks, jwt_audience=AUDIENCE), now_s=Clock())
    assert verdict(judge, bearer(new.token())) == "Unauthenticated"
    old.write(jwks, new)
    assert [verdict(judge, bearer(one.token())) for one in (old, new)] == ["jwt:carol"] * 2
    new.write(jwks)
    assert verdict(judge, bearer(old.token())) == "Unauthenticated"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"keys": []}', '{"keys": [{"kty": "oct", "k": "AAAA"}]}'])
def test_a_file_without_public_keys_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "jwks").write_text(text)
    with pytest.raises(StartError, match=r"auth\.jwks"):
        Judge(Auth(jwks=tmp_path / "jwks", jwt_audience=AUDIENCE))


# --- certificates ------------------------------------------------------------------------------------


def test_a_certificate_is_known_by_each_of_its_names(tmp_path: Path) -> None:
    (tmp_path / "policy").write_text("rules: [{who: ['cert:*.team.test'], may: [infer]}]")
    judge = Judge(Auth(policy=tmp_path / "policy"))
    assert verdict(judge, {}, names=("cert:a.team.test", "cert:a")) == "cert:a.team.test"
    assert verdict(judge, {}, names=("cert:a", "cert:a.team.test")) == "cert:a"
    assert verdict(judge, {}, names=("cert:a.other.test",)) == "Forbidden"
    # Without keys or tokens their headers are somebody else's.
    assert verdict(judge, bearer("mesh"), names=("cert:a.team.test",)) == "cert:a.team.test"


# --- the policy --------------------------------------------------------------------------------------


def test_without_a_policy_health_is_for_everybody_and_the_rest_for_whoever_is_known(tmp_path: Path) -> None:
    [alice] = keys_of(tmp_path / "keys", "alice")
    judge = Judge(Auth(keys=tmp_path / "keys"))
    assert verdict(judge, {}, HEALTH) == "somebody"
    assert verdict(judge, bearer("wrong"), HEALTH) == "Unauthenticated"
    for path in (
        INFER,
        "/inference.GRPCInferenceService/LogSettings",
        "/grpc.reflection.v1alpha.ServerReflection/X",
        "/x",
    ):
        assert verdict(judge, {}, path) == "Unauthenticated"
        assert verdict(judge, bearer(alice), path) == "key:alice"


def test_rules_grant_methods_and_models_and_nothing_else(tmp_path: Path) -> None:
    alice, bob = keys_of(tmp_path / "keys", "alice", "bob")
    (tmp_path / "policy").write_text(
        "rules:\n"
        "- {who: ['key:alice'], may: [infer, about], models: [resnet, 'bert-*']}\n"
        "- {who: ['key:alice'], may: [statistics]}\n"
        "- {who: [known], may: [health]}\n"
    )
    judge = Judge(Auth(keys=tmp_path / "keys", policy=tmp_path / "policy"))
    assert verdict(judge, bearer(bob)) == "Forbidden"
    assert verdict(judge, bearer(bob), HEALTH) == "key:bob"
    assert verdict(judge, {}, HEALTH) == "Unauthenticated"
    _, permission = judge.admit((), bearer(alice), INFER)
    allowed = {name: permission.allows(name) for name in ("resnet", "bert-small", "Resnet", "other", "")}
    assert allowed == {"resnet": True, "bert-small": True, "Resnet": False, "other": False, "": False}
    _, everything = judge.admit((), bearer(alice), "/inference.GRPCInferenceService/ModelStatistics")
    assert everything.is_for_all


def test_a_changed_policy_holds_for_callers_that_are_known_already(tmp_path: Path) -> None:
    [alice] = keys_of(tmp_path / "keys", "alice")
    path = tmp_path / "policy"
    path.write_text("rules: [{who: [known], may: [infer]}]")
    judge = Judge(Auth(keys=tmp_path / "keys", policy=path), now_s=Clock())
    assert verdict(judge, bearer(alice)) == "key:alice"
    path.write_text("rules: [{who: [known], may: [health]}]")
    assert verdict(judge, bearer(alice)) == "Forbidden"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file"),
        ("rules: [", "no YAML, from line 1"),
        ("rules: [{who: [known]}]", "rules.0.may"),
        ("rules: [{who: [known], may: [infer], model: [a]}]", "rules.0.model"),
        ("rules: [{who: [], may: [infer]}]", "rules.0.who"),
        ("rules: [{who: [alice], may: [infer]}]", "'alice' is nobody"),
        ("rules: [{who: [known], may: [inference]}]", "'inference' is no group"),
        ("rules: [{who: [known], may: [infer], models: []}]", "rules.0.models"),
        ("{rules: [], weights: {'key:a': 0}}", "weights.key:a"),
        ("{rules: [], weights: {'key:a': 101}}", "weights.key:a"),
        ("{rules: [], weights: {'key:a': 1.5}}", "weights.key:a"),
        ("{rules: [], weights: {anyone: 2}}", "'anyone' is nobody who is known"),
    ],
)
def test_a_policy_that_says_something_else_is_refused_with_the_place(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "policy").write_text(text)
    with pytest.raises(StartError) as refusal:
        Judge(Auth(policy=tmp_path / "policy"))
    assert said in str(refusal.value)


def test_a_caller_weighs_what_the_policy_says_and_otherwise_one(tmp_path: Path) -> None:
    alice, bob, carol = keys_of(tmp_path / "keys", "alice", "bob", "carol")
    path = tmp_path / "policy"
    path.write_text("{rules: [{who: [anyone], may: [infer]}], weights: {'key:alice': 3, 'key:*b': 5, 'key:bo*': 2}}")
    judge = Judge(Auth(keys=tmp_path / "keys", policy=path), now_s=Clock())

    def weights() -> list[int]:
        everybody = [bearer(alice), bearer(bob), bearer(carol), {}]
        return [judge.admit((), headers, INFER)[0].weight for headers in everybody]

    # The greatest counts; who is not known weighs as little as who is not named.
    assert weights() == [3, 5, 1, 1]
    path.write_text("{rules: [{who: [anyone], may: [infer]}], weights: {known: 2}}")
    assert weights() == [2, 2, 2, 1]


def test_what_is_remembered_of_callers_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "policy").write_text("rules: [{who: [known], may: [infer]}]")
    judge = Judge(Auth(policy=tmp_path / "policy"))
    for number in range(3000):
        assert verdict(judge, {}, names=(f"cert:{number}",)) == f"cert:{number}"
    assert len(judge.rules.callers) == 1024


def test_every_method_of_the_protocol_is_in_one_group() -> None:
    from inferd.rpc.inference import SERVICE

    for method in SERVICE.methods:
        name = f"{SERVICE.full_name}/{method.name}"
        groups = [group for group in policy.GROUPS if policy.Rule(who=("known",), may=(group,)).grants(name)]
        assert len(groups) == 1, name


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    settings: list[Callable[[Path], Auth]] = [lambda path: Auth(policy=path), lambda path: Auth(keys=path)]
    for make in settings:
        with pytest.raises(StartError, match=r"auth\..*cannot be read"):
            Judge(make(tmp_path / "nowhere"))
