"""ONNX Runtime as this package has it: imported once, and silent."""

from __future__ import annotations

import os

# Since 1.32 ONNX Runtime has telemetry on Linux, on by default: it writes under the user's cache folder and
# knows a host to report to. A server does neither behind its operator's back. Read once, when it is imported.
os.putenv("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort

from inferd.device import RuntimeBuild

__all__ = ["RUNTIME_VERSION", "ort", "runtime_build"]

RUNTIME_VERSION: str = ort.__version__
_RELEASE = tuple(int(part) for part in RUNTIME_VERSION.split(".")[:2])
TAKES_BFLOAT16 = _RELEASE >= (1, 20)
"""Whether the binding knows types that NumPy does not."""
CHECKS_WEIGHTS = _RELEASE >= (1, 24)
"""Whether a file that names weights outside of its folder is refused."""


def runtime_build() -> RuntimeBuild:
    """What was installed."""
    try:
        from onnxruntime.capi import build_and_package_info as info
    except ImportError:  # builds before 1.19 for GPUs lack it
        info = None
    return RuntimeBuild(RUNTIME_VERSION, tuple(ort.get_available_providers()), getattr(info, "cuda_version", ""))
