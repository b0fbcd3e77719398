"""Who calls, and whether they may: the one place where that is decided, whatever carries the call.

Where each decision is remembered is the caller's business (see ext/guard); what is decided here is true until the mark
changes, which it does when one of the files has.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from inferd._native.principal import Permission, Principal
from inferd.auth.keys import Keys
from inferd.auth.policy import UNWRITTEN, Policy, covers, parse
from inferd.config import Auth
from inferd.errors import Forbidden, InferdError, StartError, Unauthenticated
from inferd.filestate import states_of

if TYPE_CHECKING:
    from inferd.auth.tokens import Tokens

log = logging.getLogger("inferd.auth")

MAX_CALLERS: Final = 1024
"""Callers that are remembered; the one that was not heard of for longest is forgotten first."""
REASONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "credentials": "a call with credentials that are not known was refused",
        "anonymous": "a call without credentials was refused",
        "method": "a call was refused, because its caller may not call this method",
        "model": "a call was refused, because its caller may not use this model",
    }
)
"""Why calls are refused, as metrics name it and as the log says it."""
NAME_LETTERS: Final = 128
"""Of a model's name that a caller chose no more is logged."""
LOOK_S: Final = 1.0
"""How often the files are looked at."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rules:
    """What the files held, all of it read at one time."""

    policy: Policy
    keys: Keys | None
    tokens: Tokens | None
    callers: OrderedDict[bytes, Principal] = field(default_factory=OrderedDict, compare=False)


class Judge:
    """Knows credentials and the policy. Belongs to the loop's thread."""

    def __init__(self, settings: Auth, *, now_s: Callable[[], float] = time.monotonic) -> None:
        """Reads the files. Raises StartError with the one that is wrong."""
        self._settings, self._now_s = settings, now_s
        self._paths = [path for path in (settings.policy, settings.keys, settings.jwks) if path is not None]
        self._seen, self._looked_s = states_of(self._paths), now_s()
        self.refusals: MutableMapping[str, int] = dict.fromkeys(REASONS, 0)
        """Calls that were refused, by reason."""
        self.rules = _read(settings)

    def refresh(self) -> Rules:
        """The rules that hold now. Files that are wrong are not taken: what held before does until they are right."""
        now_s = self._now_s()
        if now_s - self._looked_s >= LOOK_S / 2:
            self._looked_s = now_s
            seen = states_of(self._paths)
            if seen != self._seen:
                self._seen = seen
                self._read_again()
        return self.rules

    def _read_again(self) -> None:
        try:
            self.rules = _read(self._settings)
        except StartError as failure:
            log.error("changed rules are not taken; the ones before hold", extra={"reason": str(failure)})
        else:
            log.info("the rules of who may call what were read again")

    def identify(self, names: tuple[str, ...], authorization: bytes | None, api_key: bytes | None) -> Principal:
        """Whoever sends these headers on a connection with a certificate of these names.

        Raises Unauthenticated for credentials that are not known; without any, the caller is somebody unknown.
        """
        rules = self.rules
        if rules.keys is None and rules.tokens is None:
            authorization = api_key = None  # not ours to read
        digest = hashlib.sha256(repr((names, authorization, api_key)).encode()).digest()
        caller = rules.callers.get(digest)
        if caller is not None and (caller.until_ns == 0 or time.monotonic_ns() < caller.until_ns):
            rules.callers.move_to_end(digest)
            return caller
        caller = self._identified(rules, names, authorization, api_key)
        rules.callers[digest] = caller
        if len(rules.callers) > MAX_CALLERS:
            rules.callers.popitem(last=False)
        return caller

    def permit(self, caller: Principal, path: bytes) -> Permission:
        """Whether a caller may call the method at /SERVICE/METHOD."""
        method = path.decode("latin-1").removeprefix("/")
        patterns = self.rules.policy.patterns(caller.names, method)
        if not patterns:
            return Permission(Forbidden() if caller.names else Unauthenticated())
        if "*" in patterns:
            return Permission()
        return Permission(None, partial(covers, patterns), partial(self._note, "model", caller.name, method, ""))

    def refused(self, refusal: InferdError, caller: Principal | None, method: str, peer: str) -> None:
        """A call of a method, by the server's name for it, is refused for what identify or permit said."""
        if isinstance(refusal, Unauthenticated):
            self._note("credentials" if caller is None else "anonymous", "", method, peer)
        elif isinstance(refusal, Forbidden) and caller is not None:
            self._note("method", caller.name, method, peer)

    def _note(self, reason: str, principal: str, method: str, peer: str, model: str = "") -> None:
        self.refusals[reason] += 1
        said = {"principal": principal, "method": method, "refused_model": model[:NAME_LETTERS], "peer": peer}
        log.warning(REASONS[reason], extra={"reason": reason} | {key: text for key, text in said.items() if text})

    def admit(
        self, names: tuple[str, ...], headers: Mapping[str, Any], path: str, method: str = "", peer: str = ""
    ) -> tuple[Principal, Permission]:
        """Both at once, for calls that Python carries. Raises what the caller is told if the call may not go on.

        `method` is its name if it is one of the server's, and `peer` where the call comes from: both for the log.
        """
        self.refresh()
        caller: Principal | None = None
        try:
            caller = self.identify(names, _bytes(headers.get("authorization")), _bytes(headers.get("x-api-key")))
            permission = self.permit(caller, path.encode("latin-1", "replace"))
            if permission.refusal is not None:
                raise permission.refusal
        except InferdError as refusal:
            self.refused(refusal, caller, method, peer)
            raise
        return caller, permission

    @staticmethod
    def _identified(
        rules: Rules, names: tuple[str, ...], authorization: bytes | None, api_key: bytes | None
    ) -> Principal:
        until_ns = 0
        found: str | None = None
        if authorization is not None:
            scheme, _, credential = authorization.decode("latin-1").partition(" ")
            credential = credential.strip()
            if scheme.lower() == "bearer" and rules.tokens is not None and credential.count(".") == 2:
                told = rules.tokens.find(credential)
                if told is not None:
                    found = f"jwt:{told[0]}"
                    until_ns = time.monotonic_ns() + int(told[1] * 1e9)
            elif scheme.lower() == "bearer" and rules.keys is not None:
                name = rules.keys.find(credential)
                found = name and f"key:{name}"
        elif api_key is not None and rules.keys is not None:
            name = rules.keys.find(api_key.decode("latin-1"))
            found = name and f"key:{name}"
        if found is None and (authorization is not None or api_key is not None):
            raise Unauthenticated()
        known = (found,) if found is not None else names
        return Principal(known, rules, authorization, api_key, until_ns, rules.policy.weight(known))


def certificate_names(context: Mapping[str, Any]) -> tuple[str, ...]:
    """What a policy may know a client by, of gRPC's auth_context: its certificate's names, alternative ones first."""
    names: list[str] = []
    for key in ("x509_subject_alternative_name", "x509_common_name"):
        names += [f"cert:{value.decode('utf-8', 'replace')}" for value in context.get(key) or ()]
    return tuple(dict.fromkeys(names))


def _read(settings: Auth) -> Rules:
    return Rules(
        UNWRITTEN if settings.policy is None else _parsed("auth.policy", settings.policy, parse),
        None if settings.keys is None else _parsed("auth.keys", settings.keys, Keys),
        None if settings.jwks is None else _tokens(settings, settings.jwks),
    )


def _tokens(settings: Auth, jwks: Path) -> Tokens:
    # Only here: what it stands on takes long to import, and most servers check no tokens.
    from inferd.auth.tokens import Tokens

    return _parsed("auth.jwks", jwks, lambda text: Tokens(text, settings))


def _parsed(setting: str, path: Path, parse_text: Callable[[str], T]) -> T:
    try:
        return parse_text(path.read_text("utf-8"))
    except OSError as failure:
        raise StartError(f"{setting}: {path} cannot be read: {failure.strerror}") from failure
    except UnicodeDecodeError:
        raise StartError(f"{setting}: {path} is not UTF-8") from None
    except StartError as failure:
        raise StartError(f"{setting}: {path}: {failure}") from None


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode("latin-1", "replace") if isinstance(value, str) else value
