"""The magika example: what the model is shown of a file, what its scores mean, and that Magika itself agrees."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "magika"
LABELS = ("python", "zip", "sql", "randombytes", "randomtxt")
BLOCK, FRONT, BACK, PADDING = 64, 16, 12, 256
WHITESPACE = b" \t\n\r\x0b\x0c"


def _load(name: str) -> ModuleType:
    # The example is a script with neighbours, not a package: they are found beside it, and only while it loads.
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLE))
        return importlib.import_module(name)


features, scan, pipeline = _load("features"), _load("scan"), _load("pipeline")


def model_json(**changes: Any) -> str:
    return json.dumps(
        {
            "beg_size": FRONT,
            "mid_size": 0,
            "end_size": BACK,
            "use_inputs_at_offsets": False,
            "medium_confidence_threshold": 0.5,
            "min_file_size_for_dl": 8,
            "padding_token": PADDING,
            "block_size": BLOCK,
            "target_labels_space": LABELS,
            "thresholds": {"sql": 0.9},
            "overwrite_map": {"randombytes": "unknown", "randomtxt": "txt"},
        }
        | changes
    )


def types_json() -> str:
    binary = {"zip", "randombytes", "unknown", "empty", "directory", "symlink", "undefined"}
    known = {*LABELS, "txt", *binary}
    return json.dumps({label: {"description": f"a {label}", "is_text": label not in binary} for label in known})


CONFIG = features.parse_config(model_json(), types_json())


def examine(content: bytes) -> Any:
    return features.examine(len(content), content[:BLOCK], content[-BLOCK:], CONFIG)


def scores(**by_label: float) -> Any:
    return np.array([by_label.get(label, 0.0) for label in LABELS], dtype=np.float32)


# --- the row -------------------------------------------------------------------------------------------


@given(st.binary(max_size=3 * BLOCK))
def test_the_front_of_a_row_is_the_start_of_the_first_block_without_leading_whitespace(content: bytes) -> None:
    row = features.tokens(content[:BLOCK], content[-BLOCK:], CONFIG)
    shown = content[:BLOCK].lstrip(WHITESPACE)[:FRONT]
    assert row[:FRONT].tolist() == list(shown) + [PADDING] * (FRONT - len(shown))


@given(st.binary(max_size=3 * BLOCK))
def test_the_back_of_a_row_is_the_end_of_the_last_block_without_trailing_whitespace(content: bytes) -> None:
    row = features.tokens(content[:BLOCK], content[-BLOCK:], CONFIG)
    shown = content[-BLOCK:].rstrip(WHITESPACE)[-BACK:]
    assert row[FRONT:].tolist() == [PADDING] * (BACK - len(shown)) + list(shown)


@given(st.binary(min_size=BLOCK, max_size=BLOCK), st.binary(), st.binary(min_size=BLOCK, max_size=BLOCK))
def test_the_middle_of_a_file_changes_nothing(first: bytes, middle: bytes, last: bytes) -> None:
    with_middle, without = examine(first + middle + last), examine(first + last)
    if isinstance(without, features.Verdict):
        assert with_middle == without
    else:
        assert (with_middle == without).all()


def test_a_row_is_int32() -> None:
    assert examine(b"x" * 100).dtype == np.int32


# --- content that is too short --------------------------------------------------------------------------


def test_no_content_is_empty() -> None:
    assert examine(b"") == features.Verdict("empty", "a empty", 1.0, "undefined")


@given(st.text(min_size=1).map(str.encode).filter(lambda content: len(content) < 8))
def test_fewer_bytes_than_the_model_needs_are_text_when_they_are_utf_8(content: bytes) -> None:
    assert examine(content).label == "txt"


def test_fewer_bytes_than_the_model_needs_are_unknown_when_they_are_not_utf_8() -> None:
    assert examine(b"\xff\xfe").label == "unknown"


@given(st.integers(0, 40), st.binary(min_size=8, max_size=40).filter(lambda content: content[:1].strip() != b""))
def test_whitespace_before_the_content_does_not_count_towards_what_the_model_needs(blanks: int, content: bytes) -> None:
    assert not isinstance(examine(b" " * blanks + content), features.Verdict)
    assert isinstance(examine(b" " * (blanks + 8) + content[:7]), features.Verdict)


def test_whitespace_after_the_content_counts() -> None:
    assert not isinstance(examine(b"x" + b" " * 7), features.Verdict)


def test_nothing_but_whitespace_is_text_however_long() -> None:
    assert examine(b"\n" * 10 * BLOCK).label == "txt"


def test_only_the_first_block_decides_between_text_and_unknown() -> None:
    assert examine(b" " * BLOCK + b"\xff" * BLOCK).label == "txt"


def test_a_character_that_the_end_of_the_block_cuts_in_two_makes_it_unknown() -> None:
    assert examine(b" " * (BLOCK - 1) + "é".encode() + b"more than eight bytes").label == "unknown"


# --- the decision ---------------------------------------------------------------------------------------


def test_a_label_with_a_score_at_its_threshold_is_believed() -> None:
    assert features.decide(scores(python=0.5), CONFIG) == features.Verdict("python", "a python", 0.5, "python")


def test_a_text_label_below_its_threshold_becomes_txt() -> None:
    verdict = features.decide(scores(sql=0.89), CONFIG)
    assert (verdict.label, verdict.model_label) == ("txt", "sql")


def test_a_binary_label_below_its_threshold_becomes_unknown() -> None:
    verdict = features.decide(scores(zip=0.49), CONFIG)
    assert (verdict.label, verdict.model_label) == ("unknown", "zip")


def test_a_believed_label_is_renamed_as_the_configuration_says() -> None:
    assert features.decide(scores(randombytes=0.9), CONFIG).label == "unknown"
    assert features.decide(scores(randomtxt=0.9), CONFIG).label == "txt"


def test_the_threshold_is_that_of_the_label_before_it_is_renamed() -> None:
    renaming = features.parse_config(model_json(overwrite_map={"sql": "python"}), types_json())
    assert features.decide(scores(sql=0.6), renaming).label == "txt"
    assert features.decide(scores(sql=0.95), renaming).label == "python"


def test_medium_confidence_ignores_the_threshold_of_the_label() -> None:
    assert features.decide(scores(sql=0.6), CONFIG, features.Mode.MEDIUM_CONFIDENCE).label == "sql"
    assert features.decide(scores(sql=0.4), CONFIG, features.Mode.MEDIUM_CONFIDENCE).label == "txt"


def test_best_guess_believes_any_score() -> None:
    assert features.decide(scores(sql=0.01), CONFIG, features.Mode.BEST_GUESS).label == "sql"


def test_the_first_of_equal_scores_wins() -> None:
    assert features.decide(scores(zip=0.5, python=0.5), CONFIG).label == "python"


@given(st.lists(st.floats(0, 1, width=32), min_size=len(LABELS), max_size=len(LABELS)), st.sampled_from(features.Mode))
def test_the_score_is_always_the_best_one_whatever_becomes_of_the_label(values: list[float], mode: Any) -> None:
    assert features.decide(np.array(values, dtype=np.float32), CONFIG, mode).score == max(values)


def test_scores_of_another_model_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 5 scores"):
        features.decide(np.zeros(6, dtype=np.float32), CONFIG)


def test_scores_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="not numbers"):
        features.decide(np.full(5, np.nan, dtype=np.float32), CONFIG)


# --- the configuration ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"mid_size": 1024},
        {"use_inputs_at_offsets": True},
        {"padding_token": 0},
        {"end_size": 0},
        {"beg_size": 4},
        {"block_size": FRONT - 1},
        {"target_labels_space": ["python", "a label without a description"]},
        {"thresholds": None, "beg_size": None},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_configuration_that_would_give_wrong_answers_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(features.BadConfig):
        features.parse_config(model_json(**changes), types_json())


def test_what_is_not_a_configuration_is_refused() -> None:
    with pytest.raises(features.BadConfig):
        features.parse_config("[]", "{}")


# --- files ----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A few files of every kind that can lie in a folder."""
    (tmp_path / "sub" / ".git").mkdir(parents=True)
    (tmp_path / "sub" / ".git" / "config").write_text("not ours")
    (tmp_path / ".git").write_text("gitdir: of a worktree")
    (tmp_path / "sub" / "deep.py").write_text("import os\nprint(os.name)\n")
    (tmp_path / "empty").touch()
    (tmp_path / "tiny").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    (tmp_path / "link-to-folder").symlink_to(tmp_path)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


def walked(*roots: Path) -> list[Path]:
    return list(scan.walk(roots, {".git"}, lambda path, why: pytest.fail(f"{path}: {why}")))


def test_a_walk_finds_every_file_once_and_follows_no_link_to_a_folder(folder: Path) -> None:
    names = [str(path.relative_to(folder)) for path in walked(folder, folder / "sub")]
    assert names == ["dangling", "empty", "link", "link-to-folder", "pipe", "tiny", "sub/deep.py"]


def test_a_root_that_is_missing_is_reported_as_unreadable(tmp_path: Path) -> None:
    [path] = walked(tmp_path / "nowhere")
    assert isinstance(scan.inspect(path, CONFIG), scan.Unreadable)


@pytest.mark.parametrize(
    ("name", "followed", "as_it_is"),
    [
        ("empty", "empty", "empty"),
        ("link", "empty", "symlink"),
        ("link-to-folder", "directory", "symlink"),
        ("sub", "directory", "directory"),
        ("pipe", "unknown", "unknown"),
        ("tiny", "txt", "txt"),
    ],
)
def test_what_is_no_ordinary_file_has_a_label_of_its_own(folder: Path, name: str, followed: str, as_it_is: str) -> None:
    assert scan.inspect(folder / name, CONFIG).label == followed
    assert scan.inspect(folder / name, CONFIG, no_dereference=True).label == as_it_is


def test_a_dangling_link_is_unreadable_unless_links_are_not_followed(folder: Path) -> None:
    assert isinstance(scan.inspect(folder / "dangling", CONFIG), scan.Unreadable)
    assert scan.inspect(folder / "dangling", CONFIG, no_dereference=True).label == "symlink"


@given(content=st.binary(max_size=4 * BLOCK))
def test_a_file_is_examined_like_its_content(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "content"
    path.write_bytes(content)
    found, told = scan.inspect(path, CONFIG), examine(content)
    assert (found == told) if isinstance(told, features.Verdict) else (found == told).all()


# --- many requests in flight ----------------------------------------------------------------------------


class Later:
    """A model that answers only when so many requests wait, latest first: zip for a row that starts with Z."""

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._waiting: list[tuple[Any, Any]] = []
        self.sizes: list[int] = []

    def submit(self, rows: Any, done: Any) -> None:
        self.sizes.append(len(rows))
        self._waiting.append((rows, done))
        if len(self._waiting) == self._patience:
            while self._waiting:
                rows, done = self._waiting.pop()
                done(np.stack([scores(zip=0.9) if row[0] == ord("Z") else scores(python=0.9) for row in rows]))


def test_answers_that_arrive_out_of_order_reach_their_own_files(tmp_path: Path) -> None:
    paths = [tmp_path / f"{kind}{number}" for number in range(6) for kind in "ZP"]
    for path in paths:
        path.write_text(path.name * 10)
    model = Later(patience=3)
    found = list(pipeline.classify(paths, CONFIG, model.submit, pipeline.Load(rows=2, in_flight=3)))
    assert model.sizes == [2] * 6
    assert {finding.path.name[0]: finding.outcome.label for finding in found} == {"Z": "zip", "P": "python"}
    assert sorted(finding.path for finding in found) == sorted(paths)


def test_no_more_requests_than_allowed_are_unanswered(tmp_path: Path) -> None:
    paths = [_write(tmp_path / str(number), b"x" * 20) for number in range(5)]
    model = Later(patience=1)
    next(pipeline.classify(paths, CONFIG, model.submit, pipeline.Load(rows=1, in_flight=2)))
    assert len(model.sizes) == 2


def test_the_last_request_carries_what_is_left(tmp_path: Path) -> None:
    paths = [_write(tmp_path / str(number), b"x" * 20) for number in range(5)]
    model = Later(patience=1)
    list(pipeline.classify(paths, CONFIG, model.submit, pipeline.Load(rows=3, in_flight=2)))
    assert model.sizes == [3, 2]


def test_the_error_of_a_request_reaches_the_caller(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 20)

    def refuse(rows: Any, done: Any) -> None:
        done(ConnectionError("gone"))

    with pytest.raises(ConnectionError, match="gone"):
        list(pipeline.classify([tmp_path / "file"], CONFIG, refuse, pipeline.Load(rows=1, in_flight=1)))


# --- Magika itself --------------------------------------------------------------------------------------


def _made(folder: Path) -> Iterator[Path]:
    """Files at the edges of the rules, for the real sizes: 8 bytes, rows of 1024 + 1024, blocks of 4096."""
    rng = np.random.default_rng(1)
    noise, text = rng.bytes(9000), b"def spam(eggs):\n    return [egg + 1 for egg in eggs]\n" * 200
    for size in (0, 1, 7, 8, 9, 1023, 1024, 1025, 2048, 4095, 4096, 4097, 8191, 8192, 9000):
        for kind, content in (("noise", noise), ("text", text), ("blank", b" \t\r\n" * 2250), ("zero", bytes(9000))):
            yield _write(folder / f"{kind}-{size}", content[:size])
            yield _write(folder / f"{kind}-{size}-blanks-before", b"\n" * (size // 2) + content[:size])
            yield _write(folder / f"{kind}-{size}-blanks-after", content[:size] + b"\x0b\x0c " * (size // 2))
    for before in (4088, 4089, 4090, 4095, 4096):
        yield _write(folder / f"cut-{before}", b" " * before + "é".encode() * 50)


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _real() -> Sequence[Path]:
    """Every 15th file of the standard library, and the checkout's own that nobody rewrites meanwhile."""
    checkout = EXAMPLE.parents[1]
    own = [path for part in ("examples", "tests", "proto", "ext") for path in sorted((checkout / part).rglob("*.*"))]
    standard = sorted(Path(os.__file__).parent.glob("*.py")) + sorted(Path(os.__file__).parent.glob("*/*"))
    return [path for path in [*own, *standard[::15]] if path.suffix != ".pyc"][:400]


def _compare_with_magika(paths: Sequence[Path], mode: Any) -> list[Any]:
    """Classify with ONNX Runtime in the server's place, and ask the magika package about the same files."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    magika = pytest.importorskip("magika")
    onnxruntime = pytest.importorskip("onnxruntime")
    package = Path(magika.__file__).parent
    model = package / "models" / "standard_v3_3"
    types = (package / "config" / "content_types_kb.min.json").read_text("utf-8")
    config = features.parse_config((model / "config.min.json").read_text("utf-8"), types)
    session = onnxruntime.InferenceSession(model / "model.onnx", providers=["CPUExecutionProvider"])

    def submit(rows: Any, done: Any) -> None:
        done(session.run(["target_label"], {"bytes": rows})[0])

    verify = _load("verify")
    reference = verify.load_reference(mode, no_dereference=False)
    findings = pipeline.classify(paths, config, submit, pipeline.Load(rows=5, in_flight=2), mode=mode)
    return list(verify.compare(findings, reference, tolerance=1e-5))


@pytest.mark.parametrize("mode", features.Mode)
def test_magika_agrees_at_the_edges_of_the_rules(folder: Path, tmp_path: Path, mode: Any) -> None:
    (tmp_path / "made").mkdir()
    paths = [*walked(folder), *_made(tmp_path / "made")]
    compared = _compare_with_magika(paths, mode)
    assert [comparison.equal for comparison in compared] == [True] * len(paths)


def test_magika_agrees_on_real_files() -> None:
    paths = _real()
    compared = _compare_with_magika(paths, features.Mode.HIGH_CONFIDENCE)
    assert [comparison for comparison in compared if not comparison.equal] == []
    assert len(compared) == len(paths) > 100
