"""Write the model repository that the examples are served from: magika (downloaded) and churn (trained here).

magika: the ONNX file of the PyPI package magika 1.0.3 by Google LLC, licence Apache-2.0. The wheel is only unzipped
and its three files are checked by SHA-256; none of its code is installed or run. Two JSON files that clients
need lie beside the version folder, where no server looks. churn: see churn/train.py.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent

MAGIKA = "magika==1.0.3"
MAGIKA_FILES: Mapping[str, tuple[str, str]] = {
    # file in the repository: (file in the wheel, its SHA-256)
    "1/model.onnx": (
        "magika/models/standard_v3_3/model.onnx",
        "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
    ),
    "config.min.json": (
        "magika/models/standard_v3_3/config.min.json",
        "ae24c742205358f6ff6dfd5facb6743fb69743dbba8373e73da58ff0cbd695db",
    ),
    "content_types_kb.min.json": (
        "magika/config/content_types_kb.min.json",
        "75208adba69bc0556403b62b32ef3ccf8b5ce494411780845852e52e6583a10d",
    ),
}
# Words of pip's that mean that nobody answered.
UNREACHED = ("NewConnectionError", "NameResolutionError", "ConnectTimeout", "ReadTimeout", "ProxyError")
MAGIKA_ORIGIN = f"""\
model.onnx, config.min.json and content_types_kb.min.json come unchanged from the PyPI package {MAGIKA}.
Copyright Google LLC. Licence: Apache License 2.0, http://www.apache.org/licenses/LICENSE-2.0
"""

CHURN_SOURCES = ("churn/customers.py", "churn/train.py")
# What a change of would give another model.
CHURN_PACKAGES = ("numpy", "scikit-learn", "skl2onnx")
CHURN_CONFIG = """\
# Optional: without this file a server finds tensors and batchability out from the model itself.
name: "churn"
platform: "onnxruntime_onnx"
max_batch_size: 256
dynamic_batching { max_queue_delay_microseconds: 0 }
"""

EXAMPLES = """\
examples:
  build_repository.py build/example-models               what `make serve` serves
  build_repository.py models --only churn                just one of the two
  build_repository.py models --wheel magika-1.0.3.whl    without a network, from a wheel fetched before

exit codes: 0 everything is there; 2 something is missing, one line says what
"""


class Stop(Exception):
    """The repository cannot be completed; the message is one line for the user."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="build_repository.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", type=Path, metavar="TARGET", help="folder to write <model>/<version>/model.onnx to")
    parser.add_argument("--only", choices=["magika", "churn"], help="build one model instead of both")
    parser.add_argument("--wheel", type=Path, metavar="FILE", help="take magika from this wheel, download nothing")
    options = parser.parse_args(argv)
    started_s = time.perf_counter()
    try:
        # churn first: it needs no network, so without one there is still something to serve.
        if options.only != "magika":
            build_churn(options.target / "churn")
        if options.only != "churn":
            build_magika(options.target / "magika", options.wheel)
    except Stop as err:
        print(f"build_repository: {err}", file=sys.stderr)
        return 2
    except OSError as err:
        print(f"build_repository: {err.filename or options.target}: {err.strerror or err}", file=sys.stderr)
        return 2
    print(f"{options.target} is complete ({time.perf_counter() - started_s:.1f} s)")
    return 0


# --- magika ----------------------------------------------------------------------------------------


def build_magika(folder: Path, wheel: Path | None) -> None:
    """Put the three files of Magika into ``folder``, downloading the wheel only if one is not there or altered.

    Raises:
        Stop: the wheel cannot be had, or does not hold the files that this script knows.
    """
    if all(_sha256(folder / name) == expected for name, (_, expected) in MAGIKA_FILES.items()):
        print("magika: already there")
        return
    with tempfile.TemporaryDirectory() as scratch:
        if wheel is None:
            print(f"magika: downloading {MAGIKA} (16 MB) ...", flush=True)
            wheel = _download(Path(scratch))
        contents = {name: _unpacked(wheel, member, expected) for name, (member, expected) in MAGIKA_FILES.items()}
    # The model comes last: a server that watches the folder never finds it without the files beside it.
    for name in sorted(contents, key=lambda name: name.endswith(".onnx")):
        _write(folder / name, contents[name])
    _write(folder / "ORIGIN.txt", MAGIKA_ORIGIN.encode())
    print("magika: written, SHA-256 as expected (Apache-2.0)")


def _download(into: Path) -> Path:
    # Two tries, not six: who has no network should hear it in seconds.
    flags = "--disable-pip-version-check --no-input --quiet --retries 1 --timeout 20 --no-deps --only-binary :all:"
    command = [sys.executable, "-m", "pip", "download", *flags.split(), "-d", str(into), MAGIKA]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    wheels = list(into.glob("*.whl"))
    if done.returncode == 0 and wheels:
        return wheels[0]
    said = done.stderr.strip().splitlines() or ["it said nothing"]
    if "No module named pip" in said[-1]:
        raise Stop(f"{sys.executable} has no pip; fetch the wheel of {MAGIKA} yourself and give it with --wheel")
    if any(word in done.stderr for word in UNREACHED):
        raise Stop(f"cannot download {MAGIKA}: no network, no package index was reached; --wheel takes a local file")
    raise Stop(f"cannot download {MAGIKA}: pip says: {said[-1]}")


def _unpacked(wheel: Path, member: str, expected_sha256: str) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(member)
    except (zipfile.BadZipFile, KeyError) as err:
        raise Stop(f"{wheel.name} is not the wheel of {MAGIKA}: {err}") from err
    found = hashlib.sha256(content).hexdigest()
    if found != expected_sha256:
        raise Stop(f"{member} in {wheel.name} has SHA-256 {found}, expected {expected_sha256}: nothing was written")
    return content


# --- churn -----------------------------------------------------------------------------------------


def build_churn(folder: Path) -> None:
    """Train the churn model into ``folder``, unless one stands there that these sources and packages made.

    Raises:
        Stop: a package for training is missing, or training failed.
    """
    model, stamp = folder / "1" / "model.onnx", folder / "ORIGIN.txt"
    made_by = _churn_recipe()
    if model.is_file() and stamp.is_file() and stamp.read_text("utf-8") == f"{made_by}model {_sha256(model)}\n":
        print("churn: already there")
        return
    print("churn: training ...", flush=True)
    train = [sys.executable, str(HERE / "churn" / "train.py"), "--output", str(model)]
    if subprocess.run(train, stdin=subprocess.DEVNULL, check=False).returncode != 0:
        raise Stop("training churn failed, see above")
    _write(folder / "config.pbtxt", CHURN_CONFIG.encode())
    _write(stamp, f"{made_by}model {_sha256(model)}\n".encode())
    print("churn: written")


def _churn_recipe() -> str:
    """Everything that decides what the model will be, as text."""
    lines = [f"source {name} {_sha256(HERE / name)}" for name in CHURN_SOURCES]
    for package in CHURN_PACKAGES:
        try:
            lines.append(f"package {package} {metadata.version(package)}")
        except metadata.PackageNotFoundError as err:
            raise Stop(f"churn needs {package}: pip install '{HERE.parent}[examples]'") from err
    return "".join(f"{line}\n" for line in lines)


# --- files -----------------------------------------------------------------------------------------


def _sha256(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


def _write(path: Path, content: bytes) -> None:
    """Write a file so that nobody ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)


if __name__ == "__main__":
    sys.exit(main())
