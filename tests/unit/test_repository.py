"""The model repository on disk: what scan() finds, and what it calls broken."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.errors import RepositoryError
from inferd.repository import BrokenModel, ModelDir, Reader, Repository, VersionDir, digest
from inferd.repository.scan import NAME, NOT_MODELS


def put(path: Path, content: str | bytes = b"onnx") -> Path:
    """A file, and the folders it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def only_model(root: Path) -> ModelDir:
    found = Reader(root).scan()
    assert found.broken == ()
    (model,) = found.models
    return model


def only_reason(root: Path) -> str:
    found = Reader(root).scan()
    assert found.models == ()
    (broken,) = found.broken
    return broken.reason


def fault(path: Path) -> str:
    with pytest.raises(RepositoryError) as caught:
        Reader(path).scan()
    return str(caught.value)


def versions(root: Path) -> list[int]:
    return [version.version for version in only_model(root).versions]


# --- a repository ------------------------------------------------------------------------------------


def test_a_model_without_a_config_is_found(tmp_path: Path) -> None:
    put(tmp_path / "net" / "1" / "model.onnx")
    model = only_model(tmp_path)
    assert model.decl.name == "net"
    assert model.decl.config is None
    assert model.decl.warnings == ()
    assert model.versions == (VersionDir(1, tmp_path / "net" / "1", tmp_path / "net" / "1" / "model.onnx"),)


def test_a_config_beside_the_versions_is_read(tmp_path: Path) -> None:
    put(tmp_path / "net" / "1" / "model.onnx")
    put(tmp_path / "net" / "config.pbtxt", 'name: "net"\nmax_batch_size: 8\n')
    assert only_model(tmp_path).decl.batching.max_batch_size == 8


def test_models_come_by_name_and_dot_folders_and_files_are_passed_over(tmp_path: Path) -> None:
    for name in ("b", "a", "c.v-2", ".git"):
        put(tmp_path / name / "1" / "model.onnx")
    put(tmp_path / "README.md")
    assert [model.decl.name for model in Reader(tmp_path).scan().models] == ["a", "b", "c.v-2"]


def test_a_bad_model_does_not_hide_the_good_ones(tmp_path: Path) -> None:
    put(tmp_path / "good" / "1" / "model.onnx")
    put(tmp_path / "bad" / "1" / "model.onnx")
    put(tmp_path / "bad" / "config.pbtxt", "nonsense")
    put(tmp_path / "none" / "readme.txt")
    found = Reader(tmp_path).scan()
    assert [model.decl.name for model in found.models] == ["good"]
    assert [broken.name for broken in found.broken] == ["bad", "none"]


def test_a_relative_path_is_found_from_where_we_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "net" / "1" / "model.onnx")
    monkeypatch.chdir(tmp_path)
    assert only_model(Path(".")).versions[0].model_path == tmp_path / "net" / "1" / "model.onnx"


def test_the_own_folder_of_a_mounted_disk_is_no_model(tmp_path: Path) -> None:
    put(tmp_path / "net" / "1" / "model.onnx")
    (tmp_path / "lost+found").mkdir()
    assert Reader(tmp_path).scan().broken == ()


@pytest.mark.parametrize("name", ["-x", "a b", "a+b", "é", "a" * 129])
def test_a_folder_whose_name_is_no_model_name_is_broken_and_told_the_pattern(tmp_path: Path, name: str) -> None:
    put(tmp_path / name / "1" / "model.onnx")
    assert r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}" in only_reason(tmp_path)


def test_a_folder_name_that_is_not_utf8_can_be_printed(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"n\xff")).mkdir()
    (broken,) = Reader(tmp_path).scan().broken
    assert broken.name == r"n\xff"
    broken.reason.encode()


FOLDER_NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40
).filter(lambda name: name[0] != "." and name not in NOT_MODELS)


@settings(max_examples=50)
@given(name=FOLDER_NAMES)
def test_any_folder_name_is_a_model_or_broken(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    root = tmp_path_factory.mktemp("repository")
    put(root / name / "1" / "model.onnx")
    found = Reader(root).scan()
    assert [model.decl.name for model in found.models] == ([name] if NAME.fullmatch(name) else [])
    assert [broken.name for broken in found.broken] == ([] if NAME.fullmatch(name) else [name])


# --- a path that is no repository --------------------------------------------------------------------


def test_an_empty_repository_is_told_the_layout(tmp_path: Path) -> None:
    assert f"expected <repository>/<model>/<version>/model.onnx, for example {tmp_path}" in fault(tmp_path)


def test_a_folder_with_a_loose_model_file_is_told_what_to_give(tmp_path: Path) -> None:
    put(tmp_path / "net.onnx")
    assert "holds net.onnx but no model folder; give that file" in fault(tmp_path)


@pytest.mark.parametrize("inside", ["config.pbtxt", "1/model.onnx"])
def test_the_folder_of_one_model_is_told_from_a_repository(tmp_path: Path, inside: str) -> None:
    put(tmp_path / "net" / inside)
    assert f"is the folder of one model; give the folder it lies in, {tmp_path}" in fault(tmp_path / "net")


def test_a_model_whose_name_is_a_number_is_a_model(tmp_path: Path) -> None:
    put(tmp_path / "1" / "1" / "model.onnx")
    assert only_model(tmp_path).decl.name == "1"


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "no such file or folder" in fault(tmp_path / "absent")


# --- versions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("", [10]),
        ("version_policy { all { } }", [1, 3, 10]),
        ("version_policy { latest { num_versions: 2 } }", [3, 10]),
        ("version_policy { latest { num_versions: 9 } }", [1, 3, 10]),
        ("version_policy { specific { versions: [ 3, 1, 3 ] } }", [1, 3]),
    ],
)
def test_the_policy_selects_by_number(tmp_path: Path, policy: str, expected: list[int]) -> None:
    for version in (10, 3, 1):
        put(tmp_path / "net" / str(version) / "model.onnx")
    put(tmp_path / "net" / "config.pbtxt", policy)
    assert versions(tmp_path) == expected


def test_a_version_that_is_named_and_not_there_is_warned_of(tmp_path: Path) -> None:
    put(tmp_path / "net" / "1" / "model.onnx")
    put(tmp_path / "net" / "config.pbtxt", "version_policy { specific { versions: [ 1, 7 ] } }")
    model = only_model(tmp_path)
    assert [version.version for version in model.versions] == [1]
    assert model.decl.warnings == ("config.pbtxt: version_policy names version 7, which has no folder",)


def test_a_policy_that_selects_nothing_breaks_the_model(tmp_path: Path) -> None:
    put(tmp_path / "net" / "1" / "model.onnx")
    put(tmp_path / "net" / "2" / "model.onnx")
    put(tmp_path / "net" / "config.pbtxt", "version_policy { specific { versions: 7 } }")
    assert "version_policy selects none of the versions on disk (1, 2)" in only_reason(tmp_path)


@pytest.mark.parametrize("name", ["0", "01", "v1", "-1", "1.0", "\u0661", "9" * 19, "labels"])
def test_a_folder_that_is_no_version_is_warned_of(tmp_path: Path, name: str) -> None:
    put(tmp_path / "net" / "1" / "model.onnx")
    put(tmp_path / "net" / name / "model.onnx")
    model = only_model(tmp_path)
    assert [version.version for version in model.versions] == [1]
    assert model.decl.warnings == (f"folder {name!r} is not a version; those are 1, 2, 3 ... without leading zeros",)


def test_dot_folders_and_files_beside_the_versions_are_not_mentioned(tmp_path: Path) -> None:
    put(tmp_path / "net" / "1" / "model.onnx")
    put(tmp_path / "net" / ".ipynb_checkpoints" / "x")
    put(tmp_path / "net" / "warmup" / "x")
    put(tmp_path / "net" / "labels.txt")
    assert only_model(tmp_path).decl.warnings == ()


def test_a_file_in_the_place_of_a_version_is_warned_of(tmp_path: Path) -> None:
    put(tmp_path / "net" / "1" / "model.onnx")
    put(tmp_path / "net" / "2")
    assert only_model(tmp_path).decl.warnings == ("'2' is a file; a version is a folder",)


def test_a_model_without_versions_is_told_the_layout(tmp_path: Path) -> None:
    put(tmp_path / "net" / "model.onnx")
    assert f"has no version: expected <repository>/<model>/<version>/model.onnx, for example {tmp_path}" in (
        only_reason(tmp_path)
    )


def test_a_selected_version_without_its_file_breaks_the_model_and_older_ones_do_not(tmp_path: Path) -> None:
    put(tmp_path / "net" / "2" / "model.onnx")
    (tmp_path / "net" / "1").mkdir()
    assert versions(tmp_path) == [2]
    (tmp_path / "net" / "3").mkdir()
    assert only_reason(tmp_path) == "version 3 has no model.onnx"


def test_a_model_file_under_another_name_is_pointed_out(tmp_path: Path) -> None:
    put(tmp_path / "net" / "1" / "net.onnx")
    assert only_reason(tmp_path) == (
        "version 1 has no model.onnx; it has net.onnx: rename it, or set default_model_filename"
    )


def test_the_model_file_that_the_config_names_is_the_one_to_open(tmp_path: Path) -> None:
    put(tmp_path / "net" / "1" / "net.onnx")
    put(tmp_path / "net" / "config.pbtxt", 'default_model_filename: "net.onnx"')
    assert only_model(tmp_path).versions[0].model_path == tmp_path / "net" / "1" / "net.onnx"


def test_a_folder_with_the_model_files_name_is_looked_into(tmp_path: Path) -> None:
    file = put(tmp_path / "net" / "1" / "model.onnx" / "model.onnx")
    assert only_model(tmp_path).versions[0].model_path == file


def test_an_empty_model_file_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "net" / "1" / "model.onnx", b"")
    assert "is an empty file" in only_reason(tmp_path)


def test_a_pipe_in_the_place_of_a_model_file_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "net" / "1").mkdir(parents=True)
    os.mkfifo(tmp_path / "net" / "1" / "model.onnx")
    assert "is not a regular file" in only_reason(tmp_path)


# --- config files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"name: \xff", "config.pbtxt is not UTF-8 text: byte 6 is wrong"),
        (b"#" * ((1 << 20) + 1), "config.pbtxt is larger than 1048576 bytes"),
        (b"max_batch_size: 4\nfoo: 1", "config.pbtxt line 2: "),
        (b'name: "other"', "name is 'other' but the folder is 'net'"),
    ],
)
def test_a_config_that_cannot_be_used_breaks_the_model(tmp_path: Path, content: bytes, part: str) -> None:
    put(tmp_path / "net" / "1" / "model.onnx")
    put(tmp_path / "net" / "config.pbtxt", content)
    assert part in only_reason(tmp_path)


def test_a_config_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    put(tmp_path / "net" / "1" / "model.onnx")
    put(tmp_path / "net" / "config.pbtxt", b"\xef\xbb\xbfmax_batch_size: 4\r\n")
    assert only_model(tmp_path).decl.batching.max_batch_size == 4


def test_a_pipe_in_the_place_of_a_config_is_not_opened(tmp_path: Path) -> None:
    put(tmp_path / "net" / "1" / "model.onnx")
    os.mkfifo(tmp_path / "net" / "config.pbtxt")
    assert "is not a regular file" in only_reason(tmp_path)


# --- a single file -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "name", "version"),
    [
        ("net.onnx", "net", 1),
        ("model.onnx", "model", 1),
        ("net/3/model.onnx", "net", 3),
        ("net/3/net2.onnx", "net2", 1),
        ("net/v3/model.onnx", "model", 1),
        ("not a name/3/model.onnx", "model", 1),
        ("résumé (2).onnx", "r_sum_2_", 1),
        ("-x.onnx", "_-x", 1),
        (f"{'a' * 200}.onnx", "a" * 128, 1),
    ],
)
def test_a_single_file_is_a_model_under_a_valid_name(tmp_path: Path, file: str, name: str, version: int) -> None:
    path = put(tmp_path / file)
    model = only_model(path)
    assert model.decl.name == name
    assert NAME.fullmatch(name)
    assert model.decl.model_file == path.name
    assert model.decl.warnings == ()
    assert model.versions == (VersionDir(version, path.parent, path),)


def test_a_config_is_not_read_for_a_single_file_and_a_warning_says_so(tmp_path: Path) -> None:
    path = put(tmp_path / "net" / "1" / "model.onnx")
    put(tmp_path / "net" / "config.pbtxt", "max_batch_size: 8")
    decl = only_model(path).decl
    assert decl.batching.max_batch_size is None
    assert decl.warnings == (f"config.pbtxt is not read for a single file; serve {tmp_path} to have it read",)


def test_a_relative_single_file_is_named_by_its_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "net" / "2" / "model.onnx")
    monkeypatch.chdir(tmp_path / "net" / "2")
    model = only_model(Path("model.onnx"))
    assert (model.decl.name, model.versions[0].version) == ("net", 2)


def test_a_linked_single_file_keeps_the_name_of_the_link(tmp_path: Path) -> None:
    put(tmp_path / "blobs" / "abc")
    (tmp_path / "net.onnx").symlink_to("blobs/abc")
    assert only_model(tmp_path / "net.onnx").versions[0].model_path == tmp_path / "net.onnx"


@pytest.mark.parametrize(
    ("file", "content", "part"),
    [("net.pt", b"x", "is not an .onnx file"), ("net.onnx", b"", "is an empty file")],
)
def test_a_single_file_that_cannot_be_served_is_refused(tmp_path: Path, file: str, content: bytes, part: str) -> None:
    assert part in fault(put(tmp_path / file, content))


# --- digests -----------------------------------------------------------------------------------------


def test_the_digest_is_the_sha256_of_the_file(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    assert digest(put(tmp_path / "x", content)) == hashlib.sha256(content).hexdigest()


def test_what_is_found_can_be_compared(tmp_path: Path) -> None:
    put(tmp_path / "net" / "1" / "model.onnx")
    (tmp_path / "none").mkdir()
    assert Reader(tmp_path).scan() == Reader(tmp_path).scan()
    assert isinstance(Reader(tmp_path).scan(), Repository)
    assert isinstance(Reader(tmp_path).scan().broken[0], BrokenModel)


@pytest.mark.parametrize("name", ["readiness", "liveness", "inference.GRPCInferenceService"])
def test_a_model_cannot_have_a_name_of_the_health_checks(tmp_path: Path, name: str) -> None:
    put(tmp_path / name / "1" / "model.onnx")
    assert "rename the folder" in only_reason(tmp_path)
