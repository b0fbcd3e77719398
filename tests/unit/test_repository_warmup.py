"""model_warmup in config.pbtxt, and the files that it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferd.errors import RepositoryError
from inferd.repository import Reader, SampleTensor, WarmupSample, declare, parse

FP32 = "data_type: TYPE_FP32"


def sample(inputs: str, batch_size: int = 1) -> str:
    return f'model_warmup {{ name: "w" batch_size: {batch_size} inputs {{ key: "x" value {{ {inputs} }} }} }}'


def put(path: Path, content: bytes = b"onnx") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def reason(root: Path) -> str:
    (broken,) = Reader(root).scan().broken
    return broken.reason


def test_samples_are_read_in_their_order() -> None:
    decl = declare(
        parse("""
            model_warmup [
              {
                name: "first" batch_size: 4 count: 3
                inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 2, 3 ] zero_data: true } }
                inputs { key: "n" value { data_type: TYPE_INT64 random_data: true } }
              },
              {
                batch_size: 1
                inputs { key: "x" value { data_type: TYPE_STRING dims: 1 input_data_file: "text/hello" } }
              }
            ]
        """),
        "m",
    )
    assert decl.warmup == (
        WarmupSample(
            "first", 4, 3, {"x": SampleTensor("FP32", (2, 3), "zero"), "n": SampleTensor("INT64", (), "random")}
        ),
        WarmupSample("#2", 1, 1, {"x": SampleTensor("BYTES", (1,), "file", Path("text/hello"))}),
    )
    assert decl.warnings == ()


def test_a_sample_of_no_rows_is_skipped_and_named() -> None:
    decl = declare(parse(sample(f"{FP32} dims: 1 zero_data: true", batch_size=0)), "m")
    assert decl.warmup == ()
    assert decl.warnings == ("config.pbtxt: model_warmup 'w' has batch_size 0 and is skipped",)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (sample("dims: 1 zero_data: true"), "model_warmup 'w', input 'x' needs a data_type"),
        (sample(f"{FP32} dims: -1 zero_data: true"), "dims must all be 1 or more: a request leaves none open"),
        (sample(f"{FP32} dims: 1"), "needs one of zero_data, random_data and input_data_file"),
        (sample(f'{FP32} dims: 1 input_data_file: "../x"'), "must be a path below the folder 'warmup', not '../x'"),
        (sample(f'{FP32} dims: 1 input_data_file: "/etc/passwd"'), "must be a path below the folder 'warmup'"),
        (sample(f'{FP32} dims: 1 input_data_file: "a/../../b"'), "must be a path below the folder 'warmup'"),
        (sample(f'{FP32} dims: 1 input_data_file: ""'), "must be a path below the folder 'warmup'"),
        (
            "max_batch_size: 2 " + sample(f"{FP32} dims: 1 zero_data: true", batch_size=3),
            "model_warmup 'w': batch_size must be at most 2, not 3",
        ),
        (sample(f"{FP32} dims: 1 zero_data: true", batch_size=4_000_000_000), "batch_size must be at most 65536"),
    ],
)
def test_a_sample_that_cannot_be_is_refused_with_its_reason(text: str, part: str) -> None:
    with pytest.raises(RepositoryError) as caught:
        declare(parse(text), "m")
    assert part in str(caught.value)


def test_a_file_is_found_below_the_models_warmup_folder(tmp_path: Path) -> None:
    put(tmp_path / "m" / "1" / "model.onnx")
    put(tmp_path / "m" / "config.pbtxt", sample(f'{FP32} dims: 1 input_data_file: "a/b"').encode())
    assert reason(tmp_path).endswith("warmup does not exist")
    file = put(tmp_path / "m" / "warmup" / "a" / "b")
    (model,) = Reader(tmp_path).scan().models
    assert model.decl.warmup[0].inputs["x"].file == file
    assert model.decl.warnings == ()


def test_a_link_out_of_the_repository_is_not_followed(tmp_path: Path) -> None:
    secret = put(tmp_path / "secret")
    put(tmp_path / "repository" / "m" / "1" / "model.onnx")
    put(tmp_path / "repository" / "m" / "config.pbtxt", sample(f'{FP32} dims: 1 input_data_file: "x"').encode())
    (tmp_path / "repository" / "m" / "warmup").mkdir()
    (tmp_path / "repository" / "m" / "warmup" / "x").symlink_to(secret)
    assert "leads out of the repository" in reason(tmp_path / "repository")


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "m" / "1" / "model.onnx")
    put(tmp_path / "m" / "config.pbtxt", sample(f'{FP32} dims: 1 input_data_file: "x"').encode())
    (tmp_path / "m" / "warmup" / "x").mkdir(parents=True)
    assert "is not a regular file" in reason(tmp_path)
