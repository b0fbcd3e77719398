"""Fuzz one target: `run.py --target=NAME` and libFuzzer's own arguments; `make fuzz` sets up what that needs."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

with atheris.instrument_imports(include=["inferd.rpc.native"]):
    from targets import CHANGES, TARGETS

    from inferd._native import live


def main() -> None:
    # libFuzzer passes over what begins with two dashes, and starts processes of its own with this command.
    name = sys.argv[1].removeprefix("--target=")
    sys.argv[0] = f"{sys.executable} -P {sys.argv[0]}"
    if live.snapshot() is None:
        sys.exit(f"{live.__file__} is a release build: neither coverage nor the sanitizers would see anything")
    target = TARGETS[name]()
    change = CHANGES[name]
    atheris.Setup(
        sys.argv, target, custom_mutator=lambda data, limit, seed: change(data, limit, seed, atheris.Mutate)
    )  # fmt: skip
    gc.collect()
    gc.freeze()  # what each run leaves is then found quickly
    atheris.Fuzz()


main()
