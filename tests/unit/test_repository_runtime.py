"""parameters and optimization in config.pbtxt: each name with what it may say, and what comes of it."""

from __future__ import annotations

from dataclasses import fields

import pytest

from inferd.errors import RepositoryError
from inferd.repository import RuntimeDecl, declare, parse
from inferd.repository.parameters import CUDA_OPTIONS, PARAMETERS
from inferd.repository.tensorrt import TENSORRT_OPTIONS


def parameter(key: str, said: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{said}" }} }}'


def accelerated(side: str, name: str, parameters: str = "") -> str:
    return f'optimization {{ execution_accelerators {{ {side} {{ name: "{name}" {parameters} }} }} }}'


def fault(text: str) -> str:
    with pytest.raises(RepositoryError) as caught:
        declare(parse(text), "m")
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "said", "runtime"),
    [
        ("intra_op_thread_count", "4", RuntimeDecl(intra_op_threads=4)),
        ("inter_op_thread_count", "007", RuntimeDecl(inter_op_threads=7)),
        ("execution_mode", "1", RuntimeDecl(parallel=True)),
        ("enable_mem_arena", "false", RuntimeDecl(memory_arena=False)),
        ("enable_mem_pattern", "0", RuntimeDecl(memory_pattern=False)),
        ("enable_mem_pattern", "True", RuntimeDecl(memory_pattern=True)),
        ("memory.enable_memory_arena_shrinkage", "cpu:0;gpu:1", RuntimeDecl(shrink_arenas=("cpu:0", "gpu:1"))),
        ("intra_op.allow_spinning", "1", RuntimeDecl(session_entries={"session.intra_op.allow_spinning": "1"})),
        ("session.inter_op.allow_spinning", "0", RuntimeDecl(session_entries={"session.inter_op.allow_spinning": "0"})),
        ("session.dynamic_block_base", "4", RuntimeDecl(session_entries={"session.dynamic_block_base": "4"})),
        ("cudnn_conv_algo_search", "1", RuntimeDecl(cuda_options={"cudnn_conv_algo_search": "HEURISTIC"})),
        (
            "gpu_mem_limit",
            "18446744073709551615",
            RuntimeDecl(cuda_options={"gpu_mem_limit": "18446744073709551615"}),
        ),
        ("arena_extend_strategy", "1", RuntimeDecl(cuda_options={"arena_extend_strategy": "kSameAsRequested"})),
        ("do_copy_in_default_stream", "false", RuntimeDecl(cuda_options={"do_copy_in_default_stream": "0"})),
    ],
)
def test_a_parameter_that_is_acted_on_is_read(key: str, said: str, runtime: RuntimeDecl) -> None:
    decl = declare(parse(parameter(key, said)), "m")
    assert decl.runtime == runtime
    assert decl.warnings == ()


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("intra_op_thread_count", "four"),
        ("inter_op_thread_count", "-1"),
        ("execution_mode", "2"),
        ("enable_mem_arena", ""),
        ("memory.enable_memory_arena_shrinkage", "1"),
        ("memory.enable_memory_arena_shrinkage", "cpu:1"),
        ("memory.enable_memory_arena_shrinkage", "cpu:0;"),
        ("session.disable_prepacking", "yes"),
        ("session.dynamic_block_base", "-1"),
        ("cudnn_conv_algo_search", "3"),
        ("cudnn_conv_algo_search", "HEURISTIC"),
        ("gpu_mem_limit", "18446744073709551616"),
        ("gpu_mem_limit", "4G"),
        ("arena_extend_strategy", "2"),
    ],
)
def test_a_parameter_is_held_to_what_it_may_say(key: str, said: str) -> None:
    assert fault(parameter(key, said)) == (
        f"config.pbtxt: parameter '{key}' must be {PARAMETERS[key].values}, not {said!r}"
    )


def test_a_parameter_that_nothing_reads_is_named() -> None:
    decl = declare(parse(parameter("session.load_model_format", "ORT")), "m")
    assert decl.runtime == RuntimeDecl()
    assert decl.warnings == ("config.pbtxt: parameter 'session.load_model_format' is not acted on",)


def test_an_arena_that_is_turned_off_cannot_be_shrunk() -> None:
    text = parameter("enable_mem_arena", "0") + parameter("memory.enable_memory_arena_shrinkage", "cpu:0")
    assert "enable_mem_arena 0 leaves no arena there" in fault(text)


@pytest.mark.parametrize("level", [-1, 0, 1, 2])
def test_the_graph_level_is_read(level: int) -> None:
    decl = declare(parse(f"optimization {{ graph {{ level: {level} }} }}"), "m")
    assert decl.runtime == RuntimeDecl(graph_level=level)
    assert decl.warnings == ()


def test_a_graph_level_that_there_is_not_is_refused() -> None:
    text = "optimization { graph { level: 3 } }"
    assert fault(text) == "config.pbtxt: optimization.graph.level must be -1, 0, 1 or 2, not 3"


def test_options_of_the_cuda_accelerator_are_read_in_their_own_spelling_and_parameters_win() -> None:
    said = (
        'parameters { key: "cudnn_conv_algo_search" value: "DEFAULT" } parameters { key: "use_tf32" value: "false" } '
        'parameters { key: "gpu_mem_limit" value: "1000" }'
    )
    text = accelerated("gpu_execution_accelerator", "cuda", said) + parameter("gpu_mem_limit", "2000")
    decl = declare(parse(text), "m")
    assert decl.runtime == RuntimeDecl(
        cuda_options={"cudnn_conv_algo_search": "DEFAULT", "use_tf32": "0", "gpu_mem_limit": "2000"}
    )
    assert decl.warnings == ()


@pytest.mark.parametrize(
    ("side", "name"),
    [
        ("gpu_execution_accelerator", "migraphx"),
        ("gpu_execution_accelerator", "TensorRT"),
        ("cpu_execution_accelerator", "openvino"),
        ("cpu_execution_accelerator", "tensorrt"),
    ],
)
def test_an_accelerator_that_is_not_offered_is_named(side: str, name: str) -> None:
    said = 'parameters { key: "precision_mode" value: "FP16" }'
    assert declare(parse(accelerated(side, name, said)), "m").warnings == (
        f"config.pbtxt: execution accelerator '{name}' is not offered: the model runs without it",
    )


def test_an_option_of_cuda_that_is_unknown_is_named_and_a_wrong_one_refused() -> None:
    unknown = accelerated("gpu_execution_accelerator", "cuda", 'parameters { key: "device_id" value: "0" }')
    assert declare(parse(unknown), "m").warnings == (
        "config.pbtxt: parameter 'device_id' of execution accelerator 'cuda' is not acted on",
    )
    wrong = accelerated("gpu_execution_accelerator", "cuda", 'parameters { key: "use_tf32" value: "maybe" }')
    assert fault(wrong) == (
        "config.pbtxt: parameter 'use_tf32' of execution accelerator 'cuda' must be 0 or 1, not 'maybe'"
    )


def test_every_parameter_sets_a_field_that_there_is() -> None:
    names = {one.name for one in fields(RuntimeDecl)}
    for table in (PARAMETERS, CUDA_OPTIONS, TENSORRT_OPTIONS):
        assert {one.field for one in table.values()} <= names
    assert all(one.is_for_cuda and one.key == name for name, one in CUDA_OPTIONS.items())
