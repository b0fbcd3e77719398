"""ONNX Runtime as this package has it: imported once, and silent."""

from __future__ import annotations

import os

# Since 1.32 ONNX Runtime has telemetry on Linux, on by default: it writes under the user's cache folder and
# knows a host to report to. A server does neither behind its operator's back. Read once, when it is imported.
os.putenv("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort

__all__ = ["RUNTIME_VERSION", "ort"]

RUNTIME_VERSION: str = ort.__version__
