"""The page about config.pbtxt says what the code does."""

from __future__ import annotations

from pathlib import Path

from inferd.repository import declare, parse
from inferd.repository.docs import EXAMPLE, MEANINGS, page
from inferd.repository.fields import FIELDS, Place
from inferd.repository.parameters import CUDA_OPTIONS, PARAMETERS
from inferd.repository.tensorrt import TENSORRT_OPTIONS

PAGE = Path(__file__).parents[2] / "docs" / "model-config.md"


def test_the_page_is_what_the_code_writes() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: make docs"


def test_every_field_with_a_place_has_a_meaning() -> None:
    assert set(MEANINGS) == {path for path, place in FIELDS.items() if place is not Place.INSIDE}


def test_every_parameter_has_its_line() -> None:
    for name in [*PARAMETERS, *CUDA_OPTIONS, *TENSORRT_OPTIONS]:
        assert f"\n| `{name}` | " in page()


def test_the_example_is_served_without_a_warning() -> None:
    decl = declare(parse(EXAMPLE), "classifier")
    assert decl.warnings == ()
    assert decl.runtime.intra_op_threads == 4
    assert decl.warmup[0].inputs["image"].dims == (3, 224, 224)
