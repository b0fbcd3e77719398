"""Weights in files of their own lie in the version's folder, and are read from nowhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_models as models
import pytest
from onnx import TensorProto

from inferd.config import Settings
from inferd.device import Devices
from inferd.errors import ModelFailed
from inferd.loading import load
from inferd.repository import BrokenModel, ModelDir, Reader

FACTOR = np.array(3, "f4")


def with_weights_at(location: str) -> onnx.ModelProto:
    """A model whose one weight is in another file."""
    made = models.scale(float(FACTOR))
    (weight,) = made.graph.initializer
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    return made


def found(repository: Path, location: str) -> ModelDir | BrokenModel | None:
    models.write(repository, "net", with_weights_at(location))
    return Reader(repository, follow_links=True).find("net")


def loads(directory: ModelDir | BrokenModel | None) -> None:
    assert isinstance(directory, ModelDir)
    load(directory.decl, directory.versions[0], Settings(), 1, Devices())


@pytest.mark.parametrize("location", ["weights.bin", "parts/weights.bin"])
def test_weights_in_the_folder_of_the_version_are_read(tmp_path: Path, location: str) -> None:
    directory = found(tmp_path, location)
    file = tmp_path / "net" / "1" / location
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(FACTOR.tobytes())
    loads(directory)


@pytest.mark.parametrize(
    "location", ["../weights.bin", "../../weights.bin", "parts/../../weights.bin", "{}/weights.bin"]
)
def test_weights_elsewhere_are_not(tmp_path: Path, location: str) -> None:
    (tmp_path / "net" / "1" / "parts").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "net"):
        (folder / "weights.bin").write_bytes(FACTOR.tobytes())
    onnx.save(with_weights_at(location.format(tmp_path)), tmp_path / "net" / "1" / "model.onnx")
    directory = Reader(tmp_path, follow_links=True).find("net")
    with pytest.raises(ModelFailed, match=r"External data path|weights outside of its folder"):
        loads(directory)


def test_a_link_among_the_weights_that_leads_out_of_the_repository_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(FACTOR.tobytes())
    repository = tmp_path / "repository"
    models.write(repository, "net", with_weights_at("weights.bin"))
    (repository / "net" / "1" / "weights.bin").symlink_to(tmp_path / "secret")
    for follows in (False, True):
        refused = Reader(repository, follow_links=follows).find("net")
        assert isinstance(refused, BrokenModel)
        assert "leads out of the repository" in refused.reason
