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


def runtime_build() -> RuntimeBuild:
    """What was installed."""
    try:
        from onnxruntime.capi import build_and_package_info as info
    except ImportError:  # builds before 1.19 for GPUs lack it
        info = None
    return RuntimeBuild(RUNTIME_VERSION, tuple(ort.get_available_providers()), getattr(info, "cuda_version", ""))
