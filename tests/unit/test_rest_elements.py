"""Elements of tensors as JSON: what goes in comes out, and what does not fit is refused."""

from __future__ import annotations

import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from inferd.errors import InvalidRequest
from inferd.http.elements import BYTES_OF, raw, text

KINDS: dict[str, Any] = {
    "BOOL": np.bool_, "FP16": np.float16, "BF16": ml_dtypes.bfloat16, "FP32": np.float32, "FP64": np.float64,
    **{f"{sign}INT{bits}": f"{sign.lower()}int{bits}" for sign in ("U", "") for bits in (8, 16, 32, 64)},
}  # fmt: skip


def there_and_back(content: bytes, datatype: str) -> bytes:
    return raw(json.loads(f"[{text(content, datatype, 'x')}]"), datatype, "x")


def test_every_datatype_has_a_size() -> None:
    assert dict(BYTES_OF) == {name: np.dtype(kind).itemsize for name, kind in KINDS.items()}


@pytest.mark.parametrize("datatype", sorted(set(KINDS) - {"BF16"}))
@given(st.data())
def test_numbers_come_back_as_they_were(datatype: str, data: st.DataObject) -> None:
    values = data.draw(arrays.arrays(KINDS[datatype], st.integers(0, 20), elements={"allow_nan": False}
                       if datatype.startswith("FP") else None))  # fmt: skip
    assert there_and_back(values.tobytes(), datatype) == values.tobytes()


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=20))
def test_bf16_is_rounded_as_others_round_it(values: list[float]) -> None:
    single = np.array(values, np.float32)
    with np.errstate(over="ignore"):
        expected = single.astype(ml_dtypes.bfloat16)
    assert raw(json.loads(f"[{text(single.tobytes(), 'FP32', 'x')}]"), "BF16", "x") == expected.tobytes()


@given(st.lists(st.text(), max_size=10))
def test_texts_come_back_as_they_were(texts: list[str]) -> None:
    content = b"".join(len(one.encode()).to_bytes(4, "little") + one.encode() for one in texts)
    assert there_and_back(content, "BYTES") == content


def test_a_long_tensor_is_written_whole() -> None:
    values = np.arange(10_000, dtype=np.int32)
    assert there_and_back(values.tobytes(), "INT32") == values.tobytes()


def test_a_number_is_written_as_short_as_it_can_be() -> None:
    assert text(np.array([0.1, 1e-7], np.float32).tobytes(), "FP32", "x") == "0.1,1e-07"


def test_what_is_no_number_is_text() -> None:
    values = np.array([np.nan, np.inf, -np.inf, 1], np.float32)
    assert json.loads(f"[{text(values.tobytes(), 'FP32', 'x')}]") == ["NaN", "Infinity", "-Infinity", 1]
    assert there_and_back(values.tobytes(), "FP32") == values.tobytes()


@pytest.mark.parametrize(
    ("data", "datatype"),
    [
        ([256], "UINT8"), ([-1], "UINT64"), ([2**63], "INT64"), ([1.0], "INT32"), ([True], "INT8"), (["1"], "INT8"),
        ([1], "BOOL"), (["one"], "FP32"), ([None], "FP32"), ([True], "FP32"), ([1e39], "FP32"), ([70000], "FP16"),
        ([1], "BYTES"), ("text", "BYTES"), ({}, "FP32"), (1.0, "FP32"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(data: Any, datatype: str) -> None:
    with pytest.raises(InvalidRequest, match="x"):
        raw(data, datatype, "x")


def test_nesting_is_flattened_in_order_and_bounded() -> None:
    assert raw([[[1], [2]], [[3], []]], "UINT8", "x") == b"\1\2\3"
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(InvalidRequest, match="deep"):
        raw(deep, "UINT8", "x")


def test_bytes_that_are_no_text_are_to_be_asked_for_as_bytes() -> None:
    with pytest.raises(InvalidRequest, match="binary_data"):
        text(b"\1\0\0\0\xff", "BYTES", "x")
