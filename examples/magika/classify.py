"""Say what kind of file each file is, by asking the Magika model behind a server of the Open Inference Protocol."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO, TypeVar

import numpy as np
import tritonclient.grpc as triton
from features import BadConfig, Config, Mode, Scores, Tokens, Verdict, parse_config
from pipeline import Finding, Load, Submit, classify
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from scan import Unreadable, walk
from tritonclient.utils import InferenceServerException
from verify import compare, load_reference

Step = TypeVar("Step")

CHECKOUT = Path(__file__).resolve().parents[2]
# What tools make in a checkout: thousands of files that are nobody's own.
MADE = frozenset({".venv", ".cache", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis"})
MADE |= {"__pycache__", "build", "dist"}
NEVER = frozenset({".git"})

EXAMPLES = """\
examples:
  classify.py                              the files of this checkout
  classify.py ~/Downloads report.pdf       folders (recursively) and files
  classify.py --quiet /usr/share           only the counts
  classify.py --batch 1 --in-flight 64 .   many small requests: the server does the batching
  classify.py --verify .                   also ask the magika package and compare every answer

exit codes: 0 done; 1 --verify found a difference; 2 could not start or the server failed
"""


class Stop(Exception):
    """The work cannot go on; the message is one line for the user."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parser().parse_args(argv)
    try:
        return _run(options)
    except Stop as err:
        print(f"classify: {err}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="classify.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("paths", nargs="*", type=Path, metavar="PATH", help="files and folders (default: this checkout)")
    add("--url", default="127.0.0.1:8001", help="host:port of the server's gRPC (default: %(default)s)")
    add("--model", default="magika", help="name of the model on the server (default: %(default)s)")
    add(
        "--config",
        type=Path,
        default=CHECKOUT / "build" / "example-models" / "magika",
        metavar="DIR",
        help="folder with the model's two JSON files, as build_repository.py leaves it (default: %(default)s)",
    )
    add(
        "--batch",
        type=_at_least_one,
        default=4,
        metavar="N",
        help="files in one request (default: %(default)s)",
    )
    add(
        "--in-flight",
        type=_at_least_one,
        default=8,
        metavar="N",
        help="unanswered requests (default: %(default)s)",
    )
    add(
        "--timeout",
        type=float,
        default=60.0,
        metavar="S",
        help="seconds for one request (default: %(default)s)",
    )
    add(
        "--mode",
        type=Mode,
        choices=list(Mode),
        default=Mode.HIGH_CONFIDENCE,
        help="how sure the model must be",
    )
    add("--no-dereference", action="store_true", help="call a symbolic link a symlink instead of following it")
    add("--quiet", action="store_true", help="print the counts only, not a line for every file")
    add("--verify", action="store_true", help="compare with the magika package, file by file")
    add(
        "--tolerance",
        type=float,
        default=1e-5,
        help="score difference that --verify allows (default: %(default)s)",
    )
    return parser


def _run(options: argparse.Namespace) -> int:
    config = _read_config(options.config)
    # Found out now rather than after ten thousand files.
    reference = _reference(options) if options.verify else None
    refused: list[Finding] = []
    roots, skip = (options.paths, NEVER) if options.paths else ([Path(os.path.relpath(CHECKOUT))], NEVER | MADE)
    paths = list(walk(roots, skip, lambda path, why: refused.append(Finding(path, why))))
    with _connect(options.url, options.model, config) as client:
        submit = partial(_submit, client, options.model, options.timeout)
        started_s = time.perf_counter()
        findings = _classified(paths, config, submit, options)
        elapsed_s = time.perf_counter() - started_s
    if not options.quiet:
        _print_lines([*findings, *refused], sys.stdout)
    _print_summary([*findings, *refused], elapsed_s)
    return _verify(findings, reference, options.tolerance) if reference else 0


def _classified(
    paths: Sequence[Path], config: Config, submit: Submit, options: argparse.Namespace
) -> Sequence[Finding]:
    """Classify with a progress bar and return the findings in the order of the paths."""
    found: dict[Path, Finding] = {}
    load = Load(options.batch, options.in_flight)
    findings = classify(paths, config, submit, load, mode=options.mode, no_dereference=options.no_dereference)
    try:
        for finding in _with_bar(findings, len(paths), "classifying"):
            found[finding.path] = finding
    except InferenceServerException as err:
        raise Stop(f"the server at {options.url} failed: {_text_of(err)}") from err
    except ValueError as err:
        raise Stop(f"the model {options.model!r} does not answer as Magika does: {err}") from err
    return [found[path] for path in paths]


def _with_bar(steps: Iterable[Step], total: int, what: str) -> Iterator[Step]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # On stderr, so that stdout stays clean for a pipe.
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield from bar.track(steps, total=total, description=what)


# --- the server ------------------------------------------------------------------------------------


def _connect(url: str, model: str, config: Config) -> Any:
    """Open a client and check that the model there takes the rows and gives the scores that we expect."""
    client = triton.InferenceServerClient(url)
    try:
        metadata = client.get_model_metadata(model, client_timeout=10.0)
    except InferenceServerException as err:
        client.close()
        raise Stop(f"no answer for model {model!r} from {url}: {_text_of(err)}") from err
    shapes = {tensor.name: list(tensor.shape)[1:] for tensor in [*metadata.inputs, *metadata.outputs]}
    expected = {"bytes": [config.row_size], "target_label": [len(config.labels)]}
    if shapes != expected:
        client.close()
        raise Stop(f"the model {model!r} at {url} is another one: it has tensors {shapes}, expected {expected}")
    return client


def _submit(
    client: Any, model: str, timeout_s: float, rows: Tokens, done: Callable[[Scores | Exception], None]
) -> None:
    """Send one request without waiting; ``done`` is called on a thread of the client."""

    def answered(result: Any, error: InferenceServerException | None) -> None:
        if error is not None:
            done(error)
            return
        scores = result.as_numpy("target_label")
        done(ValueError("the answer has no target_label") if scores is None else scores.astype(np.float32, copy=False))

    tensor = triton.InferInput("bytes", list(rows.shape), "INT32")
    tensor.set_data_from_numpy(rows)
    wanted = triton.InferRequestedOutput("target_label")
    client.async_infer(model, [tensor], answered, outputs=[wanted], client_timeout=timeout_s)


def _text_of(err: InferenceServerException) -> str:
    return f"{err.status() or 'error'}: {' '.join(str(err.message()).split())}"


# --- what is printed -------------------------------------------------------------------------------


def _print_lines(findings: Iterable[Finding], out: TextIO) -> None:
    for finding in findings:
        match finding.outcome:
            case Verdict(label, description, score):
                print(f"{printable(finding.path)}: {label} ({description}) {score:.4f}", file=out)
            case Unreadable(reason):
                print(f"{printable(finding.path)}: not read: {reason}", file=out)


def printable(path: Path) -> str:
    """Spell a path so that no file name can break a line or talk to the terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(path))


def _print_summary(findings: Sequence[Finding], elapsed_s: float) -> None:
    verdicts = [finding.outcome for finding in findings if isinstance(finding.outcome, Verdict)]
    counts = Counter((verdict.label, verdict.description) for verdict in verdicts)
    table = Table("files", "label", "description", title=f"{len(counts)} types of files")
    for (label, description), count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(str(count), label, description)
    unreadable = len(findings) - len(verdicts)
    if unreadable:
        table.add_row(str(unreadable), "-", "not read")
    asked = sum(verdict.model_label != "undefined" for verdict in verdicts)
    console = Console()
    console.print(table)
    console.print(
        f"{len(findings)} files in {elapsed_s:.1f} s; {asked} rows went through the model: "
        f"{asked / max(elapsed_s, 1e-9):.0f} rows/s",
        highlight=False,
    )


# --- comparison with Magika itself -----------------------------------------------------------------


def _reference(options: argparse.Namespace) -> Any:
    try:
        return load_reference(options.mode, no_dereference=options.no_dereference)
    except ImportError as err:
        raise Stop("--verify compares with the magika package: pip install magika==1.0.3") from err


def _verify(findings: Sequence[Finding], reference: Any, tolerance: float) -> int:
    """Print each difference from the reference and a summary, and return the exit code."""
    comparisons = list(_with_bar(compare(findings, reference, tolerance), len(findings), "verifying"))
    different = [comparison for comparison in comparisons if not comparison.equal]
    for comparison in different:
        path, ours = comparison.finding.path, comparison.finding.outcome
        print(f"differs: {printable(path)}: ours {ours}, Magika's {comparison.theirs}")
    company = sum(comparison.equal and not comparison.alone for comparison in comparisons)
    largest = max((comparison.score_error for comparison in comparisons if comparison.equal), default=0.0)
    print(f"verified with {reference}:")
    print(f"  {len(comparisons)} files, {len(different)} differ, scores of the others within {largest:.1e}")
    print(f"  {company} of them equal what Magika says when asked about several files, not about one (see verify.py)")
    return 1 if different else 0


def _read_config(folder: Path) -> Config:
    try:
        texts = [(folder / name).read_text("utf-8") for name in ("config.min.json", "content_types_kb.min.json")]
        return parse_config(*texts)
    except OSError as err:
        raise Stop(f"cannot read {err.filename}; build_repository.py writes it, --config says where it is") from err
    except BadConfig as err:
        raise Stop(f"{folder}: {err}") from err


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
