"""What CUDA's errors mean for whoever is served. Numbers: CUDA Runtime API, enum cudaError."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

OUT_OF_MEMORY: Final = 2
STICKY: Final[Mapping[int, str]] = MappingProxyType(
    {
        214: "an uncorrectable memory error (ECC)",
        220: "an uncorrectable NVLink error",
        700: "an illegal memory access",
        702: "a kernel that ran for too long",
        709: "the context was destroyed",
        710: "a failed assertion on the device",
        714: "a hardware stack error",
        715: "an illegal instruction",
        716: "a misaligned address",
        717: "an invalid address space",
        718: "an invalid program counter",
        719: "an unspecified launch failure",
    }
)
"""After one of these every later call of the process fails too, as a rule."""

# How ONNX Runtime words the CUDA error that stopped it ("CUDA failure 700: an illegal memory access ...").
_NUMBER: Final = re.compile(r"(?:CUDA failure|CUDA error|cudaError[A-Za-z]*:?) ?(\d{1,3})\b")
# Its arena has limits of its own, and so have cuDNN and cuBLAS.
_NO_MEMORY: Final = re.compile(
    r"Failed to allocate memory|Available memory of|CUDA(?:NN|BLAS)?_STATUS_ALLOC_FAILED|out of memory", re.IGNORECASE
)


def cuda_code(failure: BaseException) -> int:
    """The number of the CUDA error behind an exception of CuPy or ONNX Runtime; 0 if there is none."""
    status = getattr(failure, "status", None)
    if isinstance(status, int):
        return status
    if isinstance(failure, MemoryError):
        return OUT_OF_MEMORY
    text = str(failure)
    found = _NUMBER.search(text)
    if found is not None:
        return int(found[1])
    return OUT_OF_MEMORY if _NO_MEMORY.search(text) else 0
