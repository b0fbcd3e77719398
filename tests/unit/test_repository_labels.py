"""Label files: what is read of them, and what keeps a model from being served."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inferd.repository import Reader
from inferd.repository.labels import LARGEST_LABELS_BYTES


def model(root: Path, said: str = "labels.txt") -> Path:
    """The folder of a model whose output y names a file of labels; another one keeps it company."""
    for name in ("m", "other"):
        (root / name / "1").mkdir(parents=True)
        (root / name / "1" / "model.onnx").write_bytes(b"onnx")
    config = f'output {{ name: "y" data_type: TYPE_FP32 dims: 3 label_filename: "{said}" }}'
    (root / "m" / "config.pbtxt").write_text(config)
    return root / "m"


def labels(root: Path) -> tuple[bytes, ...]:
    found = Reader(root).scan()
    assert not found.broken
    return found.models[0].decl.labels["y"]


def reason(root: Path) -> str:
    """Why the model is not served; the other one is."""
    found = Reader(root).scan()
    assert [one.decl.name for one in found.models] == ["other"]
    return found.broken[0].reason


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (b"cat\ndog\n", (b"cat", b"dog")),
        (b"cat\ndog", (b"cat", b"dog")),
        (b"cat\r\n\r\ndog\r\n", (b"cat", b"", b"dog")),
        (b"\xef\xbb\xbfcat\n\n", (b"cat", b"")),
        (b" a:b \xff\n", (b" a:b \xff",)),
        (b"", ()),
    ],
)
def test_each_line_is_the_label_of_its_index(tmp_path: Path, text: bytes, lines: tuple[bytes, ...]) -> None:
    (model(tmp_path) / "labels.txt").write_bytes(text)
    assert labels(tmp_path) == lines


def test_a_model_without_a_file_of_labels_has_none(tmp_path: Path) -> None:
    (model(tmp_path) / "config.pbtxt").write_text('output { name: "y" data_type: TYPE_FP32 dims: 3 }')
    assert [dict(one.decl.labels) for one in Reader(tmp_path).scan().models] == [{}, {}]


def test_labels_may_lie_deeper_and_behind_a_link_inside_the_folder(tmp_path: Path) -> None:
    home = model(tmp_path, "texts/labels.txt")
    (home / "texts").mkdir()
    (home / "data").write_bytes(b"cat\n")
    (home / "texts" / "labels.txt").symlink_to("../data")
    assert labels(tmp_path) == (b"cat",)


@pytest.mark.parametrize("target", ["../other/1/model.onnx", "/etc/hostname"])
def test_a_link_out_of_the_models_folder_is_not_followed(tmp_path: Path, target: str) -> None:
    (model(tmp_path) / "labels.txt").symlink_to(target)
    assert reason(tmp_path) == (
        "config.pbtxt: label_filename 'labels.txt' of output 'y' leads out of the model's folder; put a copy inside it"
    )


def test_a_folder_behind_a_link_leads_nowhere_else_either(tmp_path: Path) -> None:
    home = model(tmp_path, "there/hostname")
    (home / "there").symlink_to("/etc")
    assert "leads out of the model's folder" in reason(tmp_path)


def test_a_file_that_is_missing_keeps_the_model_from_being_served(tmp_path: Path) -> None:
    model(tmp_path)
    assert "'labels.txt' of output 'y' cannot be read: No such file or directory" in reason(tmp_path)


def test_a_link_in_a_circle_keeps_the_model_from_being_served(tmp_path: Path) -> None:
    (model(tmp_path) / "labels.txt").symlink_to("labels.txt")
    assert "label_filename 'labels.txt' of output 'y'" in reason(tmp_path)


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(model(tmp_path) / "labels.txt")
    assert "is not a regular file" in reason(tmp_path)


def test_a_file_that_is_too_large_is_not_kept(tmp_path: Path) -> None:
    path = model(tmp_path) / "labels.txt"
    path.touch()
    os.truncate(path, LARGEST_LABELS_BYTES + 1)
    assert f"is larger than {LARGEST_LABELS_BYTES} bytes" in reason(tmp_path)
