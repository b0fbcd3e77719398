"""A loaded model."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakSet

from inferd.device import Device, Lane, Provider
from inferd.errors import ModelFailed
from inferd.session.failures import one_line
from inferd.session.options import SessionOptions, ort_options
from inferd.session.padding import prepared_sizes
from inferd.session.runtime import CHECKS_WEIGHTS, RUNTIME_VERSION, TAKES_BFLOAT16, ort
from inferd.session.tensors import BFLOAT16, ELEMENT_TYPES, STRING, tensor_info
from inferd.session.weights import check_weights

if TYPE_CHECKING:
    from inferd.session.slot import Slot


RECORDING_RUNS = 2
"""Runs of a binding after which its CUDA graph is recorded."""


class Session:
    """One loaded model. Runs may come from several threads at once; the weights are shared."""

    def __init__(self, path: Path, options: SessionOptions, device: Device) -> None:
        """Load the file; ModelFailed with what the runtime said if that is not possible."""
        self.options, self.device = options, device
        self._slots: WeakSet[Slot] = WeakSet()
        self._workspace = device.workspace(options.slot_memory_nbytes)
        try:
            with self._workspace.loading():
                self.ort = _loaded(path, options, self._workspace.providers(options.cuda, options.tensorrt), device)
            self.graph_ids = count(1) if options.cuda_graphs and device.asynchronous else None
            self.inputs = tuple(tensor_info(node, "input", path) for node in self.ort.get_inputs())
            self.outputs = tuple(tensor_info(node, "output", path) for node in self.ort.get_outputs())
            self._defaults = {
                node.name: node for node in self.ort.get_overridable_initializers() if node.type in ELEMENT_TYPES
            }
            self._path = path
            self._check_types()
        except BaseException:
            self.close()
            raise

    def offer_defaults(self, names: Collection[str]) -> None:
        """Take those of the named initializers that the file lists among the graph's inputs for inputs too.

        They are optional: the value in the file is used where a run has none. Raises ModelFailed as the load does.
        """
        known = {info.name for info in self.inputs}
        offered = (node for name, node in self._defaults.items() if name in names and name not in known)
        self.inputs += tuple(replace(tensor_info(node, "input", self._path), optional=True) for node in offered)
        self._check_types()

    def _check_types(self) -> None:
        types = {info.element_type for info in (*self.inputs, *self.outputs)}
        self.has_strings = STRING in types
        if BFLOAT16 in types and not TAKES_BFLOAT16:
            raise ModelFailed(
                f"{self._path}: BF16 tensors cannot be fed through the Python binding of ONNX Runtime {RUNTIME_VERSION}"
            )
        if self.has_strings and BFLOAT16 in types:
            raise ModelFailed(
                f"{self._path}: a model with both BYTES and BF16 tensors cannot be fed through ONNX Runtime's Python "
                "binding"
            )

    def prepared_sizes(self, max_rows: int) -> tuple[int, ...]:
        """The sizes that batches are padded up to, where its device pads them."""
        return prepared_sizes(max_rows, self.options.preferred_rows)

    @property
    def first_runs(self) -> int:
        """The runs of a size in a slot after which it is as fast as it gets."""
        return 1 if self.graph_ids is None else RECORDING_RUNS

    def lane(self, slot: Slot) -> Lane:
        """The memory and order of a slot, which is closed before the session is."""
        self._slots.add(slot)
        return self._workspace.lane()

    def close(self) -> None:
        """Give the memory of the model and of its slots back. Blocks; nothing may run any more."""
        for slot in list(self._slots):
            slot.close()
        with self._workspace.loading():
            # What the runtime holds of the device goes before the stream that it computes on.
            self.ort = None
        self._workspace.close()


def _loaded(path: Path, options: SessionOptions, providers: list[Provider], device: Device) -> ort.InferenceSession:
    wanted = [provider if isinstance(provider, str) else provider[0] for provider in providers]
    unbuilt = [name for name in wanted if name not in ort.get_available_providers()]
    if unbuilt:
        raise ModelFailed(
            f"{path}: this build of ONNX Runtime, {RUNTIME_VERSION}, is without {' and '.join(unbuilt)}; docs/gpu.md "
            "says what to install"
        )
    if not CHECKS_WEIGHTS and path.suffix != ".ort":  # ONNX Runtime's own format keeps weights in the file
        check_weights(path)
    try:
        made = ort.InferenceSession(str(path), ort_options(options), providers=providers)
    except Exception as failure:  # the binding raises RuntimeError, ValueError and classes of its own
        known = device.failure_of(failure)
        reason = str(known) if known is not None else f"ONNX Runtime cannot load it: {one_line(failure)}"
        raise ModelFailed(f"{path}: {reason}") from failure
    missing = [name for name in wanted if name not in made.get_providers()]
    if missing:
        # The runtime would go on without them and say nothing; a slow answer is a failure that nobody sees.
        raise ModelFailed(
            f"{path}: ONNX Runtime has no {' and no '.join(missing)} here: its libraries are missing or of another "
            "version; docs/gpu.md says which belong together"
        )
    return made
