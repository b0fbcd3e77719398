"""The page about config.pbtxt, written from the tables in the code: ``python -m inferd.repository.docs > PAGE``.

What the page quotes as an error or a warning is what declare() really says.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from inferd.config.docs import table
from inferd.errors import RepositoryError
from inferd.repository.config import declare, parse
from inferd.repository.fields import FIELDS, Place
from inferd.repository.parameters import CUDA_OPTIONS, PARAMETERS, Parameter
from inferd.repository.tensorrt import NOT_TAKEN, TENSORRT_OPTIONS

PLACES: Mapping[Place, str] = MappingProxyType(
    {Place.ACTED: "acted on", Place.IGNORED: "ignored, with a warning", Place.REFUSED: "**refused**"}
)

# What each field says, whatever becomes of it.
MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "name": "Must be the name of the model's folder; may be left out.",
        "platform": "`onnxruntime_onnx` or nothing; another one is refused.",
        "backend": "`onnxruntime` or nothing; another one is refused.",
        "runtime": "The library of the backend.",
        "default_model_filename": (
            "The file to open in each version's folder, where it is not `model.onnx`. A folder of that name is looked"
            " into."
        ),
        "cc_model_filenames": "Other files for GPUs of some compute capability.",
        "version_policy": "Which versions are served: `latest`, `all` or `specific`; the latest one where not said.",
        "max_batch_size": (
            "Most rows of one run; 0: no batch axis, each request runs alone. Where not said, a probe tells whether "
            "rows may share a run, and `batching.max_batch_size` is the most."
        ),
        "input.name": "Must be an input of the model. Inputs that are left out are completed.",
        "input.data_type": "Must be what the model says; may be left out.",
        "input.dims": (
            "The shape that clients see, without the batch axis where `max_batch_size` is 1 or more; -1 is any size. "
            "May fix sizes that the model leaves open; may be left out."
        ),
        "input.format": "How images lie in the tensor: tools that prepare them read it from ModelConfig.",
        "input.reshape": "The shape that the model has, where clients see `dims`.",
        "input.is_shape_tensor": "The values are a shape (TensorRT).",
        "input.allow_ragged_batch": "Rows of different lengths in one run, laid end to end.",
        "input.optional": (
            "A request may leave this input out. The model must have a value of its own for it: an initializer that "
            "it lists among the graph's inputs too. Requests share a run with those that leave out the same."
        ),
        "input.is_non_linear_format_io": "A memory layout of the device's own (TensorRT).",
        "output.name": "Must be an output of the model. Outputs that are left out are completed.",
        "output.data_type": "Must be what the model says; may be left out.",
        "output.dims": "As for inputs.",
        "output.reshape": "The shape that the model has, where clients see `dims`.",
        "output.label_filename": "A file in the model's folder with a label for each class, one a line.",
        "output.is_shape_tensor": "The values are a shape (TensorRT).",
        "output.is_non_linear_format_io": "A memory layout of the device's own (TensorRT).",
        "batch_input": "Inputs that the server makes of the batch itself.",
        "batch_output": "Outputs that the server takes apart by the shapes of inputs.",
        "dynamic_batching.preferred_batch_size": (
            "Sizes at which a batch leaves at once; the server then learns none of its own."
        ),
        "dynamic_batching.max_queue_delay_microseconds": (
            "How long the oldest request may wait for others; otherwise `batching.max_queue_delay_us`."
        ),
        "dynamic_batching.preserve_ordering": (
            "Batches are of requests that came one after the other, and are answered in their order, however many "
            "instances run them. Requests of unlike shapes then share no run unless they are neighbours."
        ),
        "dynamic_batching.priority_levels": (
            "How many priorities there are, 256 at most; 1 goes first. Room that is left in a batch goes to lower "
            "ones. One that waited for `batching.priority_patience_ms` gets every ninth batch."
        ),
        "dynamic_batching.default_priority_level": "The priority of requests that name none, or one that there is not.",
        "dynamic_batching.default_queue_policy.timeout_action": (
            "What becomes of a request that waited too long: with `REJECT` it ends with DEADLINE_EXCEEDED, with "
            "`DELAY` it goes behind all that did not, of any priority."
        ),
        "dynamic_batching.default_queue_policy.default_timeout_microseconds": (
            "How long a request may wait; 0 is any time. Without a word about timeouts in the policy, the parameter "
            "`timeout` of a request is a deadline for its answer."
        ),
        "dynamic_batching.default_queue_policy.allow_timeout_override": (
            "A request may ask for a shorter time with its parameter `timeout`, or for any where there is none."
        ),
        "dynamic_batching.default_queue_policy.max_queue_size": (
            "How many requests of one priority may wait; more are refused with RESOURCE_EXHAUSTED. Where not said, "
            "`batching.max_queue_rows` holds for all together."
        ),
        "dynamic_batching.priority_queue_policy": "Policies of single priorities, each in place of the default one.",
        "sequence_batching": "Requests of one sequence go to one instance, with its state.",
        "ensemble_scheduling": "A model made of other models.",
        "instance_group.name": "A name for the group; ModelConfig shows it.",
        "instance_group.kind": (
            "`KIND_CPU` runs on the CPU, everything else on GPUs where those are used ([GPUs](gpu.md)). Where none is, "
            "the CPU runs `KIND_MODEL`, with a warning, and `KIND_GPU` if `device.fallback` is `cpu`; else that fails."
        ),
        "instance_group.count": "Batches of the group that may run at once; they share the weights. Groups add up.",
        "instance_group.rate_limiter": "Resources that an instance must hold to run.",
        "instance_group.gpus": (
            "GPUs to run on, each with `count` instances; all where none is named. A GPU that is not there is an error."
        ),
        "instance_group.secondary_devices": "Accelerators beside the main device.",
        "instance_group.profile": "Optimization profiles (TensorRT).",
        "instance_group.passive": "Instances that are loaded and get no requests.",
        "instance_group.host_policy": "A named set of CPUs and memory nodes.",
        "optimization.graph.level": (
            "How much of the graph ONNX Runtime rewrites: 0 all it can, 1 basic and extended, -1 basic, 2 nothing."
        ),
        "optimization.priority": "The priority of the model's work on a GPU.",
        "optimization.cuda": "CUDA graphs and streams.",
        "optimization.execution_accelerators": (
            "`cuda` and `tensorrt` with their parameters, see below. Others, such as `openvino`, are not offered: a "
            "warning names them and the model runs without."
        ),
        "optimization.input_pinned_memory": "Memory that a GPU copies from faster.",
        "optimization.output_pinned_memory": "Memory that a GPU copies to faster.",
        "optimization.gather_kernel_buffer_threshold": "From how many buffers on a GPU collects inputs itself.",
        "optimization.eager_batching": "The next batch is prepared while one runs.",
        "model_transaction_policy.decoupled": "A request may have no answer, or many.",
        "response_cache.enable": "Answers to equal requests come from a cache.",
        "model_warmup": (
            "Requests to run in every slot before the model is ready: `zero_data`, `random_data` or the bytes of one "
            "row in a file below the model's folder `warmup`, `batch_size` times over. One that does not run keeps "
            "the model from being served."
        ),
        "parameters": "See below.",
        "model_operations": "Libraries of operators to load.",
        "model_repository_agents": "Plug-ins that may rewrite the model's files.",
        "metric_tags": "Labels for the model's metrics.",
        "model_metrics": "How single metrics of the model are kept.",
    }
)

EXAMPLE = """\
name: "classifier"
backend: "onnxruntime"
max_batch_size: 32
input [ { name: "image" data_type: TYPE_FP32 dims: [ 3, 224, 224 ] } ]
output [ { name: "scores" data_type: TYPE_FP32 dims: [ 1000 ] } ]
dynamic_batching { max_queue_delay_microseconds: 200 }
instance_group [ { kind: KIND_CPU count: 2 } ]
version_policy { latest { num_versions: 2 } }
parameters { key: "intra_op_thread_count" value { string_value: "4" } }
model_warmup [
  {
    name: "one image"
    batch_size: 1
    inputs { key: "image" value { data_type: TYPE_FP32 dims: [ 3, 224, 224 ] random_data: true } }
  }
]
"""

WRONG = (
    'name: "other"',
    'platform: "tensorrt_plan"',
    "max_batch_size: 4 dynamic_batching { preferred_batch_size: 8 }",
    'parameters { key: "execution_mode" value { string_value: "2" } }',
    "model_transaction_policy { decoupled: true }",
)
ODD = (
    "response_cache { enable: true }",
    'parameters { key: "num_threads" value { string_value: "4" } }',
    'optimization { execution_accelerators { cpu_execution_accelerator { name: "openvino" } } }',
)


def page() -> str:
    """Write the whole page as Markdown."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield from (
        "# config.pbtxt",
        "",
        "<!-- Written by `python -m inferd.repository.docs`; change the tables in the code, not this page. -->",
        "",
        "A model's folder may hold a `config.pbtxt`, in the schema that Triton has for it. None is needed: without one",
        "a model is served as it describes itself, and what a file leaves out is completed from the model.",
        "`ModelConfig` shows the completed configuration, and `inferd check` what was found and warned of.",
        "",
        "```protobuf",
        *EXAMPLE.splitlines(),
        "```",
        "",
        "- What contradicts itself or the model keeps the model from being served, with a text that says both.",
        "- A field that changes answers and is not built is refused. One that changes none is named in a warning.",
        "- Where `max_batch_size` is not said, `dims` may be with the batch axis or without it.",
        "- `max_batch_size: 0` is not the same as saying nothing: it turns batching off.",
        "",
    )
    yield from ("## Fields", "")
    yield from table(("Field", "", "Meaning"), _fields())
    yield from ("", "## Parameters", "")
    yield from table(("Parameter", "Value", "For", "What it does"), _parameters(PARAMETERS))
    yield from (
        "",
        "Any other parameter is named in a warning. Those for CUDA are checked everywhere, and named where no GPU",
        "is used.",
        "",
        "## Parameters of the accelerator `cuda`",
        "",
        'In `gpu_execution_accelerator { name: "cuda" }` of `optimization { execution_accelerators { } }`. What stands',
        "in `parameters` too counts as it stands there.",
        "",
    )
    yield from table(("Parameter", "Value", "For", "What it does"), _parameters(CUDA_OPTIONS))
    yield from (
        "",
        "## Parameters of the accelerator `tensorrt`",
        "",
        "The same with this name gives what TensorRT can run to TensorRT, and the rest to CUDA. It takes a build of",
        "ONNX Runtime and libraries that have it ([GPUs](gpu.md)); without them the model fails to load.",
        "",
    )
    yield from table(("Parameter", "Value", "For", "What it does"), _parameters(TENSORRT_OPTIONS))
    yield from ("", "These of Triton's are refused:", "")
    yield from (f"- `{name}`: {reason}." for name, reason in NOT_TAKEN.items())
    yield from ("", "## What is refused, and what is warned of", "", "```text")
    for text in WRONG:
        yield from (f"# {text}", _refusal(text))
    for text in ODD:
        yield from (f"# {text}", *declare(parse(text), "m").warnings)
    yield from ("```", "")


def _fields() -> Iterator[tuple[str, ...]]:
    for path, place in FIELDS.items():
        if place is not Place.INSIDE:
            yield f"`{path}`", PLACES[place], MEANINGS[path]


def _parameters(parameters: Mapping[str, Parameter]) -> Iterator[tuple[str, ...]]:
    for name, one in parameters.items():
        yield f"`{name}`", one.values, _for(one), one.does


def _for(one: Parameter) -> str:
    if one.field == "tensorrt_options":
        return "TensorRT"
    return "CUDA" if one.is_for_cuda else "CPU and CUDA"


def _refusal(text: str) -> str:
    try:
        declare(parse(text), "m")
    except RepositoryError as err:
        return str(err)
    raise AssertionError(f"the page calls this an error, and it is none: {text}")


if __name__ == "__main__":
    sys.stdout.write(page())
