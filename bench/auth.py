"""`python -m bench auth`: what it costs of the CPU time of a request to ask who calls and whether they may."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Final

import click
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from rich.console import Console

from bench.beside import MODELS, PLAIN, Kind, measure, ratios, table
from bench.works import prepare, works
from inferd.auth import keys

BOUND: Final = 1.1
"""Of a request's CPU time, in the median; one busy machine's rounds differ by as much."""
AUDIENCE: Final = "bench"
POLICY: Final = """
rules:
- {{who: [anyone], may: [health]}}
- {{who: ["{who}"], may: [infer], models: [{models}]}}
"""


def kinds(folder: Path, model: str) -> dict[str, Kind]:
    """A server that asks nobody, and some that ask: for a key, for a token, and for which model."""
    secret, entry = keys.make("bench")
    keys.add(folder / "keys", entry)
    signer = ec.generate_private_key(ec.SECP256R1())
    public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(signer.public_key()))
    (folder / "jwks").write_text(json.dumps({"keys": [public | {"kid": "bench", "alg": "ES256", "use": "sig"}]}))
    claims = {"sub": "bench", "aud": AUDIENCE, "exp": time.time() + 3600}
    token = jwt.encode(claims, signer, algorithm="ES256", headers={"kid": "bench"})
    for name, who, models in (("all", "key:bench", '"*"'), ("one", "key:bench", model), ("jwt", "jwt:bench", model)):
        (folder / name).write_text(POLICY.format(who=who, models=models))
    key, bearer = (("x-api-key", secret),), (("authorization", f"Bearer {token}"),)
    asks_keys = f"--auth-keys={folder / 'keys'}"
    return {
        PLAIN: Kind(),
        "plain, with a key": Kind((), key),
        "plain, with a token": Kind((), bearer),
        "key, all models": Kind((asks_keys, f"--auth-policy={folder / 'all'}"), key),
        "key, one model": Kind((asks_keys, f"--auth-policy={folder / 'one'}"), key),
        "token, one model": Kind(
            (f"--auth-jwks={folder / 'jwks'}", f"--auth-jwt-audience={AUDIENCE}", f"--auth-policy={folder / 'jwt'}"),
            bearer,
        ),
    }


@click.command()
@click.option("--work", "name", default="mlp", show_default=True, help="The model; the smaller, the harder.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--seconds", type=click.FloatRange(min=0.5), default=2.0, show_default=True)
@click.option("--transport", default="native", show_default=True)
def auth(name: str, rounds: int, seconds: float, transport: str) -> None:
    """Measure what the policy costs each request: no policy, API keys, JSON Web Tokens, on servers that take turns.

    Exits with 1 if a key costs more than a tenth of a request's CPU time.
    """
    known = works()
    if name not in known:
        raise click.BadParameter(f"there is no work {name!r}; there are {', '.join(known)}")
    work = prepare(known[name], MODELS)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(kinds(Path(folder), work.work.name), work, transport, rounds, seconds)
    Console(width=None if sys.stdout.isatty() else 120).print(table(found))
    sys.exit(0 if median(ratios(found, "key, one model")) <= BOUND else 1)
