"""Tensors that clients see in another shape than the model has."""

from __future__ import annotations

import numpy as np
from serve.calls import request, rows

from .case import Case, infer
from .metadata import call

# A row is [1, 4] to the model.
RESHAPED = """
input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] reshape { shape: [ 1, 4 ] } }
output { name: "y" data_type: TYPE_FP32 dims: [ 2, 2 ] reshape { shape: [ 1, 4 ] } }
"""
# A row is a scalar to the model.
SCALARS = """
input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } }
output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } }
"""

CASES = (
    *(
        Case(f"{method} of {name}", call(method, name))
        for method in ("ModelMetadata", "ModelConfig")
        for name in ("reshaped", "scalars")
    ),
    Case("as clients see it", infer(request("reshaped", x=rows(1, 3)))),
    Case("as the model has it", infer(request("reshaped", x=rows(1)[None]))),
    Case("scalars as clients see them", infer(request("scalars", x=rows(1, 3, 1)))),
    Case("scalars as the model has them", infer(request("scalars", x=np.zeros(3, "f4")))),
)
