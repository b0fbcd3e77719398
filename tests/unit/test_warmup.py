"""What runs between loading a model and serving it: generated rows, and the samples of config.pbtxt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_models
import pytest
from handmade import bound, message, packed_strings

from inferd import synthetic
from inferd._native.batch import Batch, alone
from inferd._native.reply import OutputView
from inferd.batchable import signature_of
from inferd.config import Batching, Settings
from inferd.config import Warmup as WarmupSettings
from inferd.device import CpuDevice, Devices
from inferd.errors import ModelFailed
from inferd.loading import Loaded, load
from inferd.pace import Pace
from inferd.repository import Reader, SampleTensor, WarmupSample
from inferd.session import Session, SessionOptions, Slot
from inferd.warmup import Warmup

# The time is up for nobody, however slow the machine.
PATIENT = Settings(warmup=WarmupSettings(budget_ms=60_000))


def loaded(tmp_path: Path, model: onnx.ModelProto, config: str = "", settings: Settings = PATIENT) -> Loaded:
    onnx_models.write(tmp_path, "m", model, config=config)
    (directory,) = Reader(tmp_path).scan().models
    return load(directory.decl, directory.versions[0], settings, 1, Devices())


def failure(tmp_path: Path, model: onnx.ModelProto, config: str) -> str:
    with pytest.raises(ModelFailed) as caught:
        loaded(tmp_path, model, config)
    return str(caught.value)


def sample(inputs: str, batch_size: int = 1, name: str = "w") -> str:
    return f'model_warmup {{ name: "{name}" batch_size: {batch_size} {inputs} }}'


def tensor(name: str, datatype: str, dims: list[int], data: str) -> str:
    return f'inputs {{ key: "{name}" value {{ data_type: TYPE_{datatype} dims: {dims} {data} }} }}'


def unprepared(made: Loaded, slots: tuple[Slot, ...], largest: int) -> list[int]:
    """The sizes up to `largest` of which a first run would have something to prepare."""
    batches = {
        rows: alone(made.signature, synthetic.request(made.signature, made.session.inputs, rows, 1))
        for rows in range(1, largest + 1)
    }
    return [rows for rows, batch in batches.items() if not all(slot.has_prepared(batch) for slot in slots)]


class CountingSlot(Slot):
    """A slot that remembers how many rows ran."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.rows: list[int] = []

    def run(self, batch: Batch) -> list[OutputView]:
        self.rows.append(batch.rows)
        return super().run(batch)


# --- sizes --------------------------------------------------------------------------------------------


def test_the_first_batch_of_any_size_finds_everything_prepared_in_every_slot(tmp_path: Path) -> None:
    made = loaded(tmp_path, onnx_models.mlp(), "instance_group { count: 2 }")
    pace = Pace(made.signature.max_rows)
    for _, rows, run_ns in made.samples:
        pace.observe(rows, run_ns)
    assert unprepared(made, made.slots, pace.limit) == []
    assert unprepared(made, (made.spare_slot,), 1) == []


@pytest.mark.parametrize("config", ["max_batch_size: 24 dynamic_batching { preferred_batch_size: 6 }", ""])
def test_a_model_that_does_not_learn_sizes_is_prepared_for_all(tmp_path: Path, config: str) -> None:
    settings = Settings(batching=Batching(max_batch_size=24, learn=bool(config)), warmup=PATIENT.warmup)
    made = loaded(tmp_path, onnx_models.mlp(), config, settings)
    assert unprepared(made, made.slots, 24) == []


# --- samples ------------------------------------------------------------------------------------------


def test_each_sample_runs_as_often_as_it_says_in_every_slot(tmp_path: Path) -> None:
    onnx.save(onnx_models.mlp(), tmp_path / "model.onnx")
    session = Session(tmp_path / "model.onnx", SessionOptions(), CpuDevice())
    signature = signature_of(session, "m", "1", batched=True, max_rows=8)
    slots = [CountingSlot(session), CountingSlot(session)]
    samples = [
        WarmupSample("a", 3, 2, {"x": SampleTensor("FP32", (4,), "zero")}),
        WarmupSample("b", 1, 1, {"x": SampleTensor("FP32", (4,), "random")}),
    ]
    Warmup(session, signature, slots, None, 0).rehearse(samples, rows_in_dims=False)
    assert [slot.rows for slot in slots] == [[3, 3, 1], [3, 3, 1]]


def test_a_sample_prepares_a_length_that_nobody_could_guess(tmp_path: Path) -> None:
    config = "max_batch_size: 4 instance_group { count: 2 } "
    made = loaded(
        tmp_path, onnx_models.sequence(), config + sample(tensor("ids", "INT64", [777], "zero_data: true"), 2)
    )
    batch = alone(made.signature, bound(made.signature, message(("ids", "INT64", [2, 777], bytes(8 * 2 * 777)))))
    assert all(slot.has_prepared(batch) for slot in made.slots)


@pytest.mark.parametrize("data", ["zero_data: true", "random_data: true"])
@pytest.mark.parametrize("datatype", ["BOOL", "INT8", "UINT64", "FP16", "BF16", "FP64", "BYTES"])
def test_generated_data_is_valid_in_every_datatype(tmp_path: Path, datatype: str, data: str) -> None:
    said = "STRING" if datatype == "BYTES" else datatype
    config = "max_batch_size: 4 " + sample(tensor("IN", said, [2, 3], data), 4)
    loaded(tmp_path, onnx_models.identity(datatype, ("rows", 2, 3)), config)


def test_strings_come_from_a_file_as_on_the_wire(tmp_path: Path) -> None:
    file = tmp_path / "m" / "warmup" / "greeting"
    file.parent.mkdir(parents=True)
    file.write_bytes(packed_strings([b"hello", b""]))
    config = "max_batch_size: 4 " + sample(tensor("IN", "STRING", [2], 'input_data_file: "greeting"'), 3)
    loaded(tmp_path, onnx_models.identity("BYTES", ("rows", 2)), config)
    file.write_bytes(packed_strings([b"hello"]))
    (directory,) = Reader(tmp_path).scan().models
    with pytest.raises(ModelFailed, match="model_warmup 'w' does not run"):
        load(directory.decl, directory.versions[0], PATIENT, 1, Devices())


def embedding_with(tmp_path: Path, *ids: int) -> str:
    """The configuration of an embedding whose warm-up looks up these ids."""
    file = tmp_path / "m" / "warmup" / "ids"
    file.parent.mkdir(parents=True)
    file.write_bytes(np.array(ids, "i8").tobytes())
    return "max_batch_size: 4 " + sample(tensor("ids", "INT64", [1], 'input_data_file: "ids"'), 2, "look up")


def test_a_row_of_a_file_stands_for_every_row(tmp_path: Path) -> None:
    loaded(tmp_path, onnx_models.embedding(), embedding_with(tmp_path, 7))


def test_more_bytes_than_a_row_has_are_not_read(tmp_path: Path) -> None:
    loaded(tmp_path, onnx_models.embedding(), embedding_with(tmp_path, 7, 99))


def test_a_sample_that_the_model_refuses_keeps_it_from_being_served(tmp_path: Path) -> None:
    reason = failure(tmp_path, onnx_models.embedding(), embedding_with(tmp_path, 99))
    assert reason.startswith("config.pbtxt: model_warmup 'look up' does not run: ")
    assert "out of data bounds" in reason


@pytest.mark.parametrize(
    ("said", "part"),
    [
        (sample(tensor("y", "FP32", [4], "zero_data: true")), "'y'"),
        (sample(tensor("x", "INT32", [4], "zero_data: true")), "INT32"),
        (sample(tensor("x", "FP32", [5], "zero_data: true")), "5"),
        (sample(""), "'x'"),
    ],
)
def test_a_sample_that_no_client_could_send_is_told_what_a_client_would_be_told(
    tmp_path: Path, said: str, part: str
) -> None:
    reason = failure(tmp_path, onnx_models.scale(), "max_batch_size: 4 " + said)
    assert reason.startswith("config.pbtxt: model_warmup 'w' does not run: ")
    assert part in reason


def test_a_file_that_is_too_short_is_told_with_its_size(tmp_path: Path) -> None:
    config = embedding_with(tmp_path)
    assert "ids has 0 bytes; INT64 [1] is 8" in failure(tmp_path, onnx_models.embedding(), config)


def test_a_model_without_a_batch_axis_takes_samples_of_one(tmp_path: Path) -> None:
    said = tensor("x", "FP32", [2, 4], "random_data: true")
    loaded(tmp_path / "one", onnx_models.scale(), "max_batch_size: 0 " + sample(said))
    reason = failure(tmp_path / "two", onnx_models.scale(), "max_batch_size: 0 " + sample(said, 2))
    assert "its batch_size is 2, and the model does not batch" in reason


@pytest.mark.parametrize("dims", [[4], [1, 4]])
def test_where_nobody_says_max_batch_size_the_dims_may_have_the_batch_or_not(tmp_path: Path, dims: list[int]) -> None:
    loaded(tmp_path, onnx_models.scale(), sample(tensor("x", "FP32", dims, "zero_data: true")))


def test_a_row_is_the_same_in_requests_of_every_size_and_rows_begin_anew_after_some(tmp_path: Path) -> None:
    made = loaded(tmp_path, onnx_models.mlp())
    rows = synthetic.Rows(made.signature, made.session.inputs, 1)

    def contents(count: int, first: int = 0) -> bytes:
        return rows.request(count, first).tensor_bytes(0)

    row_nbytes = len(contents(1))
    assert contents(3) == contents(1) + contents(1, 1) + contents(1, 2)
    assert contents(1) != contents(1, 1)
    assert contents(1, synthetic.DISTINCT_ROWS) == contents(1)
    assert len(contents(40)) == 40 * row_nbytes
