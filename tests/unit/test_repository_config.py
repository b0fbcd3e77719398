"""config.pbtxt: what is acted on, what is named in a warning, and what makes the model broken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from google.protobuf import text_format
from google.protobuf.descriptor import Descriptor
from hypothesis import given
from hypothesis import strategies as st

from inferd.errors import RepositoryError
from inferd.proto.model_config_pb2 import DataType, ModelConfig
from inferd.proto.pool import POOL
from inferd.repository import BatchingDecl, InstancesDecl, ModelDecl, QueuePolicy, TensorDecl, declare, parse
from inferd.repository.fields import FIELDS, Place
from inferd.repository.tensors import DATATYPES

SCHEMA = POOL.FindMessageTypeByName("inference.ModelConfig")


def declared(text: str, name: str = "m") -> ModelDecl:
    return declare(parse(text), name)


def fault(text: str) -> str:
    with pytest.raises(RepositoryError) as caught:
        declared(text)
    return str(caught.value)


# --- what is acted on --------------------------------------------------------------------------------


def test_an_empty_file_says_nothing() -> None:
    decl = declared("")
    assert decl == ModelDecl("m", config=ModelConfig())


def test_tensors_are_read_with_v2_datatypes() -> None:
    decl = declared("""
        input { name: "x" data_type: TYPE_FP32 dims: [ -1, 3 ] }
        input { name: "s" data_type: TYPE_STRING dims: 1 }
        output { name: "y" data_type: TYPE_INT64 }
        output { name: "z" }
    """)
    assert decl.inputs == (TensorDecl("x", "FP32", (-1, 3)), TensorDecl("s", "BYTES", (1,)))
    assert decl.outputs == (TensorDecl("y", "INT64", ()), TensorDecl("z", "", ()))


def test_every_datatype_but_the_invalid_one_has_a_v2_name() -> None:
    assert set(DATATYPES) == set(DataType.values())
    assert [number for number, name in DATATYPES.items() if not name] == [DataType.TYPE_INVALID]


@pytest.mark.parametrize(("text", "size"), [("", None), ("max_batch_size: 0", 0), ("max_batch_size: 8", 8)])
def test_a_batch_size_that_is_not_said_is_told_from_zero(text: str, size: int | None) -> None:
    assert declared(text).batching == BatchingDecl(max_batch_size=size)


def test_dynamic_batching_is_read_in_nanoseconds_and_rising_sizes() -> None:
    decl = declared("""
        max_batch_size: 16
        dynamic_batching {
          preferred_batch_size: [ 8, 4, 8 ]
          max_queue_delay_microseconds: 250
          default_queue_policy { max_queue_size: 100 }
        }
    """)
    assert decl.batching == BatchingDecl(
        max_batch_size=16,
        preferred_sizes=(4, 8),
        max_queue_delay_ns=250_000,
        default_policy=QueuePolicy(max_queue_size=100),
        declared=True,
    )
    assert decl.warnings == ()


def test_an_empty_dynamic_batching_section_is_declared_and_says_no_more() -> None:
    assert declared("dynamic_batching { }").batching == BatchingDecl(declared=True)


def test_dynamic_batching_without_a_batch_axis_is_warned_of() -> None:
    decl = declared("max_batch_size: 0 dynamic_batching { }")
    assert decl.warnings == ("config.pbtxt: 'dynamic_batching' batches nothing while max_batch_size is 0",)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 1),
        ("instance_group { }", 1),
        ("instance_group { kind: KIND_AUTO count: 3 }", 3),
        ("instance_group [ { kind: KIND_CPU count: 2 }, { kind: KIND_CPU } ]", 3),
    ],
)
def test_instances_of_all_groups_are_added(text: str, count: int) -> None:
    found = declared(text).instances
    assert (found.count, found.wanted, found.gpus) == (count, "", ())


@pytest.mark.parametrize(
    ("text", "instances"),
    [
        ("instance_group { kind: KIND_GPU count: 2 }", InstancesDecl(2, "KIND_GPU", needs_gpu=True)),
        ("instance_group { kind: KIND_GPU gpus: [ 1, 0 ] }", InstancesDecl(1, "KIND_GPU", (0, 1), needs_gpu=True)),
        ("instance_group { gpus: 2 }", InstancesDecl(1, "KIND_GPU", (2,), needs_gpu=True)),
        ("instance_group [ { kind: KIND_GPU }, { kind: KIND_CPU } ]", InstancesDecl(2, "KIND_GPU", needs_gpu=True)),
        ("instance_group { kind: KIND_MODEL }", InstancesDecl(1, "KIND_MODEL")),
    ],
)
def test_a_device_that_only_some_machines_have_is_remembered(text: str, instances: InstancesDecl) -> None:
    decl = declared(text)
    assert replace(decl.instances, groups=()) == instances
    assert decl.warnings == ()


@pytest.mark.parametrize("said", ['platform: "onnxruntime_onnx"', 'backend: "onnxruntime"', 'name: "m"'])
def test_an_onnx_model_under_its_own_name_is_served_without_a_warning(said: str) -> None:
    assert declared(said).warnings == ()


def test_the_model_file_may_have_another_name() -> None:
    assert declared('default_model_filename: "net.onnx"').model_file == "net.onnx"


def test_the_whole_file_is_kept() -> None:
    decl = declared('metric_tags { key: "team" value: "red" }')
    assert decl.config is not None
    assert dict(decl.config.metric_tags) == {"team": "red"}


# --- what is only warned of --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (
            'input { name: "x" data_type: TYPE_FP32 dims: 1 is_non_linear_format_io: true }',
            "input.is_non_linear_format_io",
        ),
        ('instance_group { host_policy: "p" }', "instance_group.host_policy"),
        ("response_cache { enable: true }", "response_cache.enable"),
        ("optimization { eager_batching: true }", "optimization.eager_batching"),
    ],
)
def test_a_field_that_is_not_acted_on_is_named_in_a_warning(text: str, path: str) -> None:
    assert declared(text).warnings == (f"config.pbtxt: {path!r} is not acted on",)


def test_a_field_that_many_tensors_set_is_named_once() -> None:
    tensor = 'input {{ name: "{}" data_type: TYPE_FP32 dims: 1 is_non_linear_format_io: true }}'
    assert len(declared(tensor.format("a") + tensor.format("b")).warnings) == 1


def test_a_field_that_is_set_to_its_default_is_not_mentioned() -> None:
    text = "response_cache { enable: false } model_transaction_policy { decoupled: false }"
    assert declared(text).warnings == ()


# --- what makes the model broken ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('input { name: "x" data_type: TYPE_INT32 dims: 1 is_shape_tensor: true }', "input.is_shape_tensor"),
        (
            'output { name: "y" data_type: TYPE_INT32 dims: 1 is_shape_tensor: true }',
            "output.is_shape_tensor",
        ),
        (
            'input { name: "x" data_type: TYPE_FP32 dims: 1 allow_ragged_batch: true }',
            "input.allow_ragged_batch",
        ),
        ("sequence_batching { }", "sequence_batching"),
        ("ensemble_scheduling { }", "ensemble_scheduling"),
        ("batch_input { }", "batch_input"),
        ("batch_output { }", "batch_output"),
        ("model_transaction_policy { decoupled: true }", "model_transaction_policy.decoupled"),
        ("model_repository_agents { }", "model_repository_agents"),
    ],
)
def test_a_field_that_changes_answers_is_refused_by_name(text: str, path: str) -> None:
    assert fault(text) == f"config.pbtxt: {path!r} is not supported yet"


def test_all_refused_fields_are_told_at_once() -> None:
    text = 'input { name: "x" data_type: TYPE_FP32 dims: 1 is_shape_tensor: true } batch_input { } batch_output { }'
    assert fault(text) == (
        "config.pbtxt: 'input.is_shape_tensor', 'batch_input' and 'batch_output' are not supported yet"
    )


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('name: "other"', "name is 'other' but the folder is 'm'"),
        ('platform: "tensorrt_plan"', "platform 'tensorrt_plan' is not served here"),
        ('platform: "ensemble" ensemble_scheduling { }', "platform 'ensemble' is not served here"),
        ('backend: "python"', "backend 'python' is not served here"),
        ("max_batch_size: -1", "max_batch_size must be 0 (no batch axis) or more, not -1"),
        ("instance_group { kind: KIND_CPU gpus: 0 }", "instance_group of KIND_CPU names gpus"),
        ("instance_group { kind: KIND_GPU gpus: -1 }", "instance_group gpus must be 0 or more, not -1"),
        ("instance_group { kind: 9 }", "instance_group kind 9 is unknown"),
        ("instance_group { count: -1 }", "instance_group count must be 1 or more, not -1"),
        ("instance_group [ { count: 1024 }, { } ]", "asks for 1025 instances; 1024 is the most"),
        (
            "dynamic_batching { preferred_batch_size: 0 }",
            "preferred_batch_size must be from 1 to max_batch_size",
        ),
        (
            "max_batch_size: 4 dynamic_batching { preferred_batch_size: 8 }",
            "from 1 to max_batch_size (4), not 8",
        ),
        ("dynamic_batching { max_queue_delay_microseconds: 3600000001 }", "is more than an hour"),
        ("version_policy { latest { } }", "version_policy.latest.num_versions must be 1 or more"),
        ("version_policy { specific { } }", "version_policy.specific.versions must name versions"),
        ("version_policy { specific { versions: [ 1, 0 ] } }", "each 1 or more"),
        ("input { data_type: TYPE_FP32 dims: 1 }", "an input has no name"),
        ('input { name: "x" data_type: 99 dims: 1 }', "input 'x': data_type 99 is unknown"),
        ('output { name: "y" data_type: TYPE_FP32 dims: 0 }', "output 'y': dims must be 1 or more, or -1"),
        ('output { name: "y" data_type: TYPE_FP32 dims: -2 }', "output 'y': dims must be 1 or more, or -1"),
        (
            'input [ { name: "x" data_type: TYPE_FP32 }, { name: "x" data_type: TYPE_FP32 } ]',
            "input 'x' is there twice",
        ),
    ],
)
def test_a_contradiction_is_refused_with_its_reason(text: str, part: str) -> None:
    reason = fault(text)
    assert reason.startswith("config.pbtxt: ")
    assert part in reason


@pytest.mark.parametrize("said", ["../model.onnx", "/etc/passwd", "a/b.onnx", "..", ".", "a\\\\b", "a\\000b"])
def test_a_model_file_name_with_a_path_in_it_is_refused(said: str) -> None:
    assert "must be the bare name of a file" in fault(f'default_model_filename: "{said}"')


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('name: "m"\nmax_batch_sise: 4\n', "config.pbtxt line 2: "),
        ('\n\nname: "m\n', "config.pbtxt line 3: "),
        ("input [ {\n  data_type: TYPE_FLOAT\n} ]", "config.pbtxt line 2: "),
    ],
)
def test_a_text_that_cannot_be_parsed_is_told_with_its_line_and_a_remedy(text: str, line: str) -> None:
    reason = fault(text)
    assert reason.startswith(line)
    assert "correct it, or remove the file" in reason
    assert "\n" not in reason


def test_an_unknown_field_is_refused_by_name() -> None:
    assert 'has no field named "max_batch_sise"' in fault("max_batch_sise: 4")


TOKENS = st.sampled_from([*FIELDS, "{", "}", ":", "1", '"x"', "[", "]"])


@given(st.text(max_size=200) | st.lists(TOKENS).map(" ".join))
def test_any_text_is_either_read_or_refused(text: str) -> None:
    try:
        decl = declared(text)
    except RepositoryError:
        return
    assert declared(text_format.MessageToString(decl.config)) == decl  # type: ignore[arg-type]


# --- the table ---------------------------------------------------------------------------------------


def paths(message: Descriptor, prefix: str = "") -> Iterator[str]:
    """Every field of the schema that must have a place: all of a message that is looked into."""
    for field in message.fields:
        path = f"{prefix}{field.name}"
        yield path
        if FIELDS.get(path) is Place.INSIDE and field.message_type is not None:
            yield from paths(field.message_type, f"{path}.")


def test_every_field_of_the_schema_has_a_place() -> None:
    assert [path for path in paths(SCHEMA) if path not in FIELDS] == []


def test_the_table_names_no_field_that_the_schema_lacks() -> None:
    assert set(FIELDS) - set(paths(SCHEMA)) == set()
