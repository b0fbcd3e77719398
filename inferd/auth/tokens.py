"""JSON Web Tokens: whose they are, by the public keys of a JWKS file. PyJWT does the reading and the checking."""

from __future__ import annotations

import time

import jwt

from inferd.config import Auth
from inferd.errors import StartError


class Tokens:
    """What signs tokens, and what they must say."""

    def __init__(self, text: str, settings: Auth) -> None:
        """Of the text of a JWKS file. Raises StartError if it holds no key that could be used."""
        try:
            keys = jwt.PyJWKSet.from_json(text).keys
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError, KeyError):
            raise StartError("it is no JSON Web Key Set with a public key that can be used") from None
        # Whoever can check a token of a shared secret can make one; and what signs must not be chosen by the token.
        if any(key.key_type == "oct" for key in keys):
            raise StartError("a key in it is a shared secret; give public keys only")
        if len({key.key_id for key in keys}) < len(keys):
            raise StartError("two keys in it have the same kid")
        self._keys = {key.key_id: key for key in keys}
        self._settings = settings

    def find(self, token: str) -> tuple[str, float] | None:
        """The token's subject and the seconds that it is still good for; None if it is not good."""
        settings = self._settings
        leeway_s = settings.jwt_leeway_ms / 1000
        try:
            key = self._keys.get(jwt.get_unverified_header(token).get("kid"))
            if key is None and len(self._keys) == 1:
                [key] = self._keys.values()
            if key is None:
                return None
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=settings.jwt_audience,
                issuer=settings.jwt_issuer,
                leeway=leeway_s,
                options={"require": ["exp", "sub", "aud"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError):
            return None
        subject, end_s = claims["sub"], claims["exp"]
        if not isinstance(subject, str) or not subject:
            return None
        return subject, float(end_s) + leeway_s - time.time()
