"""Ask the churn model behind a server of the Open Inference Protocol which customers are about to leave."""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from customers import FEATURES, OUTCOMES, generate
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from tritonclient.utils import InferenceServerException

CHECKOUT = Path(__file__).resolve().parents[2]
# A tree's leaves are added up in float32; another device or thread count may add them in another order.
TOLERANCE = 1e-5
# The columns' names in few letters, so that a customer fits on a line of 80.
HEADINGS = ("tenure", "term", "charge", "fibre", "extras", "calls", "late", "auto")
EXAMPLES = f"""\
examples:
  client.py                            ten generated customers
  client.py --customers 1000 --top 5   the five most likely to leave among a thousand
  client.py --csv customers.csv        your own, with a header line that names these columns in any order:
                                       {", ".join(FEATURES[:4])},
                                       {", ".join(FEATURES[4:])}
  client.py --verify                   compare with ONNX Runtime in this process

exit codes: 0 done; 1 --verify found a difference; 2 could not start or the server failed
"""


class Stop(Exception):
    """The work cannot go on; the message is one line for the user."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="client.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--url", default="127.0.0.1:8001", help="host:port of the server's gRPC (default: %(default)s)")
    add("--csv", type=Path, metavar="FILE", help="customers to score (default: generated ones)")
    add("--customers", type=int, default=10, metavar="N", help="how many to generate (default: %(default)s)")
    add("--seed", type=int, default=1, help="which customers are generated (default: %(default)s)")
    add(
        "--top",
        type=int,
        default=20,
        metavar="N",
        help="rows to print, likeliest first (default: %(default)s)",
    )
    add("--batch", type=int, default=64, metavar="N", help="customers in one request (default: %(default)s)")
    add("--verify", action="store_true", help="compare every answer with ONNX Runtime on the same file")
    add(
        "--model-file",
        type=Path,
        default=CHECKOUT / "build" / "example-models" / "churn" / "1" / "model.onnx",
        metavar="FILE",
        help="the served model, for --verify (default: %(default)s)",
    )
    options = parser.parse_args(argv)
    if min(options.customers, options.batch) < 1:
        parser.error("--customers and --batch must be 1 or more")
    try:
        features = read_csv(options.csv) if options.csv else generate(options.customers, options.seed).features
        label, probability = score(options.url, features, options.batch)
        _print(features, label, probability, options.top)
        return _verify(options.model_file, features, label, probability) if options.verify else 0
    except Stop as err:
        print(f"client: {err}", file=sys.stderr)
        return 2


def read_csv(path: Path) -> NDArray[np.float32]:
    """Read customers from a file whose header names the columns.

    Raises:
        Stop: the file cannot be read, a column is missing, or a field is not a finite number.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in FEATURES if name not in (reader.fieldnames or ())]:
                raise Stop(f"{path}: the header lacks {', '.join(missing)}")
            rows = [[_number(line[name], f"{path}:{reader.line_num}: {name}") for name in FEATURES] for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as err:
        raise Stop(f"{path}: {err}") from err
    if not rows:
        raise Stop(f"{path}: there are no customers in it")
    return np.array(rows, dtype=np.float32)


def _number(text: str | None, where: str) -> float:
    try:
        number = float(text or "")
    except ValueError:
        number = float("nan")
    if not np.isfinite(number):
        raise Stop(f"{where} is {text!r}, not a number")
    return number


def score(url: str, features: NDArray[np.float32], batch: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Send the customers in requests of ``batch`` and return labels [N] and probabilities [N, 2].

    Raises:
        Stop: the server is not there or refuses.
    """
    labels, probabilities = [], []
    try:
        with triton.InferenceServerClient(url) as client:
            for start in range(0, len(features), batch):
                rows = features[start : start + batch]
                tensor = triton.InferInput("features", list(rows.shape), "FP32")
                tensor.set_data_from_numpy(rows)
                result = client.infer("churn", [tensor], client_timeout=30.0)
                # A server may describe one label per row as [N] or as [N, 1].
                labels.append(result.as_numpy("label").reshape(-1))
                probabilities.append(result.as_numpy("probability"))
    except InferenceServerException as err:
        text = " ".join(str(err.message()).split())
        raise Stop(f"no answer from churn at {url}: {err.status() or 'error'}: {text}") from err
    return np.concatenate(labels), np.concatenate(probabilities)


def _print(features: NDArray[np.float32], label: NDArray[np.int64], probability: NDArray[np.float32], top: int) -> None:
    likeliest = np.argsort(-probability[:, 1], kind="stable")[:top]
    table = Table("no.", *HEADINGS, "leaves", "verdict", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for index in likeliest:
        chance = f"{probability[index, 1]:.1%}"
        table.add_row(str(index + 1), *(f"{value:g}" for value in features[index]), chance, OUTCOMES[label[index]])
    console = Console()
    console.print(table)
    console.print(f"{len(label)} customers, {int(label.sum())} expected to leave", highlight=False)


def _verify(
    model_file: Path,
    features: NDArray[np.float32],
    label: NDArray[np.int64],
    probability: NDArray[np.float32],
) -> int:
    # From 1.32 on, ONNX Runtime reports its use to its makers unless this is set before it is imported.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    if not model_file.is_file():
        raise Stop(f"--verify needs the served model: {model_file} is not there, --model-file says where it is")
    session: Any = onnxruntime.InferenceSession(model_file, providers=["CPUExecutionProvider"])
    own_label, own_probability = session.run(["label", "probability"], {"features": features})
    wrong = int((label != own_label).sum())
    largest = float(np.abs(probability - own_probability).max())
    print(f"verified against ONNX Runtime: {wrong} labels differ, largest difference of a probability {largest:.1e}")
    return 1 if wrong or largest > TOLERANCE else 0


if __name__ == "__main__":
    sys.exit(main())
