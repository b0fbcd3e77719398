"""Where a model file says that its weights are, for versions of ONNX Runtime that do not look themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_models as models
import pytest
from onnx import TensorProto, helper

from inferd.errors import ModelFailed
from inferd.session.weights import check_weights

OUTSIDE = ["../weights.bin", "/etc/hostname", "parts/../../weights.bin", "..", "./../w"]
INSIDE = ["weights.bin", "parts/weights.bin", "parts/../weights.bin", "..weights", "./w"]


def elsewhere(location: str, name: str = "w") -> TensorProto:
    made = TensorProto(name=name, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    made.external_data.add(key="offset", value="0")
    made.external_data.add(key="location", value=location)
    return made


def of_a_constant(location: str) -> onnx.ModelProto:
    made = models.scale()
    made.graph.node.add().CopyFrom(helper.make_node("Constant", [], ["c"], value=elsewhere(location)))
    return made


def of_a_branch(location: str) -> onnx.ModelProto:
    made = models.scale()
    branch = helper.make_graph([], "branch", [], [], [elsewhere(location)])
    made.graph.node.add().CopyFrom(helper.make_node("If", ["c"], ["d"], then_branch=branch, else_branch=branch))
    return made


def of_a_function(location: str) -> onnx.ModelProto:
    made = models.scale()
    node = helper.make_node("Constant", [], ["c"], value=elsewhere(location))
    made.functions.add(name="f", domain="d").node.add().CopyFrom(node)
    return made


def of_a_sparse_weight(location: str) -> onnx.ModelProto:
    made = models.scale()
    made.graph.sparse_initializer.add().values.CopyFrom(elsewhere(location))
    return made


def of_an_initializer(location: str) -> onnx.ModelProto:
    made = models.scale()
    made.graph.initializer.add().CopyFrom(elsewhere(location))
    return made


PLACES = [of_an_initializer, of_a_constant, of_a_branch, of_a_function, of_a_sparse_weight]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize("location", [*OUTSIDE, *INSIDE])
def test_weights_outside_of_the_folder_are_found_wherever_they_are_named(
    tmp_path: Path, place: object, location: str
) -> None:
    path = tmp_path / "model.onnx"
    assert callable(place)
    path.write_bytes(place(location).SerializeToString())
    if location in INSIDE:
        check_weights(path)
    else:
        with pytest.raises(ModelFailed, match="it names weights outside of its folder"):
            check_weights(path)


def test_the_order_of_an_entry_does_not_matter_and_its_last_words_count(tmp_path: Path) -> None:
    key, good, bad = b"\x0a\x08location", b"\x12\x01w", b"\x12\x04../w"
    for entry, refused in ((bad + key, True), (key + good + bad, True), (key + bad + good, False)):
        tensor = b"\x6a" + bytes([len(entry)]) + entry
        graph = b"\x2a" + bytes([len(tensor)]) + tensor
        path = tmp_path / "model.onnx"
        path.write_bytes(b"\x3a" + bytes([len(graph)]) + graph)
        if refused:
            with pytest.raises(ModelFailed, match="outside"):
                check_weights(path)
        else:
            check_weights(path)


@pytest.mark.parametrize("data", [b"\x3a\x7f", b"\x3b", b"\xff" * 20, b"\x3a", b"this is no model"])
def test_what_is_no_model_is_refused_with_a_reason(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelFailed, match="it is no ONNX file"):
        check_weights(path)


def test_a_model_with_all_its_weights_in_it_passes(tmp_path: Path) -> None:
    for made in (models.mlp(), models.scale(), models.embedding()):
        made.graph.initializer.add().CopyFrom(onnx.numpy_helper.from_array(np.zeros(1000, "f4"), "z"))
        path = tmp_path / "model.onnx"
        onnx.save(made, path)
        check_weights(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFailed, match="No such file"):
        check_weights(tmp_path / "model.onnx")
