"""Settings of authentication and of the one policy."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from inferd.config.kinds import HOUR_MS, FilePath, Section


class Auth(Section):
    """Who may call what. Nobody is asked until one of the files is set."""

    policy: FilePath | None = Field(
        default=None,
        description="YAML file with the rules: who may call which methods for which models. Without it health and "
        "metrics are for everybody and the rest for all whose credentials are known. Read again when it changes.",
    )
    keys: FilePath | None = Field(
        default=None,
        description="File of API keys, hashed, as `inferd key` writes them; read again when it changes.",
    )
    jwks: FilePath | None = Field(
        default=None,
        description="File of public keys (JWKS) that sign the JSON Web Tokens of clients; read again when it changes.",
    )
    jwt_audience: str | None = Field(default=None, description="What a token's `aud` must name; needed with auth.jwks.")
    jwt_issuer: str | None = Field(default=None, description="What a token's `iss` must be; not set takes any.")
    jwt_leeway_ms: int = Field(
        default=30_000,
        ge=0,
        le=HOUR_MS,
        description="How far the clock of whoever signs tokens may be from the one here.",
    )

    @property
    def is_on(self) -> bool:
        """Whether anybody is asked who they are."""
        return self.policy is not None or self.keys is not None or self.jwks is not None


def auth_contradictions(auth: Auth) -> Iterator[tuple[tuple[str, ...], str]]:
    """What of the settings of authentication cannot be meant, as in Settings."""
    if auth.jwks is not None and not auth.jwt_audience:
        yield (
            ("auth.jwks", "auth.jwt_audience"),
            "auth.jwks is set and auth.jwt_audience is not, so tokens that are meant for others would be taken",
        )
    if auth.jwks is None:
        for name in ("jwt_audience", "jwt_issuer"):
            if getattr(auth, name) is not None:
                yield (f"auth.{name}", "auth.jwks"), f"auth.{name} says something of tokens, and auth.jwks is not set"
