"""Links in a model repository: followed inside of it, as Kubernetes mounts need, and never out of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferd.repository import ModelDir, Reader

PLACES = pytest.mark.parametrize("place", ["net", "net/1", "net/1/model.onnx", "net/config.pbtxt"])


def put(path: Path, content: str = "onnx") -> None:
    """A file, and the folders it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def swap_for_link(root: Path, place: str, target: Path) -> None:
    """A repository of one model, with one part of it moved to the target and a link in its place."""
    put(root / "net" / "1" / "model.onnx")
    put(root / "net" / "config.pbtxt", "max_batch_size: 2")
    (root / place).rename(target)
    (root / place).symlink_to(target)


def only_model(root: Path) -> ModelDir:
    found = Reader(root, follow_links=True).scan()
    assert found.broken == ()
    (model,) = found.models
    return model


def only_reason(root: Path) -> str:
    found = Reader(root, follow_links=True).scan()
    assert found.models == ()
    (broken,) = found.broken
    return broken.reason


def test_a_repository_mounted_from_a_config_map_is_read_through_its_links(tmp_path: Path) -> None:
    put(tmp_path / "..2026_01_01" / "net" / "1" / "model.onnx")
    put(tmp_path / "..2026_01_01" / "net" / "config.pbtxt", "max_batch_size: 2")
    (tmp_path / "..data").symlink_to("..2026_01_01")
    (tmp_path / "net").symlink_to("..data/net")
    model = only_model(tmp_path)
    assert model.decl.name == "net"
    assert model.decl.batching.max_batch_size == 2
    assert model.versions[0].model_path == tmp_path / "..2026_01_01" / "net" / "1" / "model.onnx"


def test_weights_beside_a_linked_model_file_stay_beside_it(tmp_path: Path) -> None:
    put(tmp_path / "net" / "1" / "model.data")
    put(tmp_path / ".blobs" / "abc")
    (tmp_path / "net" / "1" / "model.onnx").symlink_to("../../.blobs/abc")
    assert (only_model(tmp_path).versions[0].model_path.parent / "model.data").exists()


@PLACES
def test_a_link_that_leaves_the_repository_is_refused(tmp_path: Path, place: str) -> None:
    root, outside = tmp_path / "repository", tmp_path / "outside"
    swap_for_link(root, place, outside)
    assert f"leads out of the repository, to {outside}" in only_reason(root)


def test_a_folder_whose_path_starts_like_the_repository_is_outside_of_it(tmp_path: Path) -> None:
    put(tmp_path / "repository2" / "1" / "model.onnx")
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "net").symlink_to(tmp_path / "repository2")
    assert "leads out of the repository" in only_reason(tmp_path / "repository")


@PLACES
def test_a_link_that_leads_nowhere_is_told(tmp_path: Path, place: str) -> None:
    swap_for_link(tmp_path, place, tmp_path / ".elsewhere")
    (tmp_path / ".elsewhere").rename(tmp_path / ".gone")
    assert "leads nowhere" in only_reason(tmp_path)


@PLACES
def test_a_link_that_stays_in_the_repository_is_followed(tmp_path: Path, place: str) -> None:
    swap_for_link(tmp_path, place, tmp_path / ".elsewhere")
    assert only_model(tmp_path).decl.name == "net"


def test_links_in_a_circle_break_only_their_model(tmp_path: Path) -> None:
    put(tmp_path / "good" / "1" / "model.onnx")
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    found = Reader(tmp_path, follow_links=True).scan()
    assert [model.decl.name for model in found.models] == ["good"]
    assert [broken.name for broken in found.broken] == ["a", "b"]


def test_the_repository_itself_may_be_a_link(tmp_path: Path) -> None:
    put(tmp_path / "real" / "net" / "1" / "model.onnx")
    (tmp_path / "link").symlink_to("real")
    assert only_model(tmp_path / "link").versions[0].path == tmp_path / "real" / "net" / "1"
