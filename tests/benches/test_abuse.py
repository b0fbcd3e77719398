"""Floods are what their names say, and a polite client beside one is measured."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import hpack
import pytest
from click.testing import CliRunner
from hyperframe.frame import ContinuationFrame, Frame, HeadersFrame, RstStreamFrame

from bench.abuse.command import abuse
from bench.abuse.floods import FLOODS, PREFACE
from bench.memory import Mix, messages

HTTP2 = [name for name in FLOODS if name != "not http/2"]


def frames(name: str, pieces: int = 3) -> list[Frame]:
    """What the first pieces of a flood consist of."""
    data = memoryview(b"".join(islice(FLOODS[name](messages(Mix.PLAIN)[0]), pieces)))
    assert data[: len(PREFACE)] == PREFACE
    data, found = data[len(PREFACE) :], []
    while data:
        frame, size = Frame.parse_frame_header(data[:9])
        frame.parse_body(data[9 : 9 + size])
        found.append(frame)
        data = data[9 + size :]
    return found


@pytest.mark.parametrize("name", HTTP2)
def test_a_flood_is_made_of_whole_frames_on_rising_streams(name: str) -> None:
    found = frames(name)
    assert len(found) > 3
    begun = [frame.stream_id for frame in found if isinstance(frame, HeadersFrame)]
    assert begun == sorted(set(begun))
    for frame in found:
        if isinstance(frame, HeadersFrame) and "END_HEADERS" in frame.flags and name != "large headers":
            headers = hpack.Decoder().decode(frame.data)
            assert (":path", "/inference.GRPCInferenceService/ModelInfer") in headers


def test_the_floods_that_have_a_shape_have_it() -> None:
    resets = frames("rapid reset")[1:]
    assert len(resets) == 2 * sum(isinstance(frame, RstStreamFrame) for frame in resets)
    endless = frames("continuation")[2:]
    assert all(isinstance(frame, ContinuationFrame) and "END_HEADERS" not in frame.flags for frame in endless)
    bomb = hpack.Decoder()
    bomb.max_header_list_size = 2**31
    sizes = [len(bomb.decode(frame.data)) for frame in frames("large headers") if isinstance(frame, HeadersFrame)]
    assert sizes == [7, 16002, 16002][: len(sizes)]


def test_a_polite_client_is_measured_beside_a_flood_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "abuse.json"
    arguments = ["--floods=rapid reset", "--rounds=1", "--seconds=0.5", f"--json={path}"]
    done = CliRunner().invoke(abuse, arguments, catch_exceptions=False)
    assert done.exit_code in (0, 1), done.output  # how it fared depends on the machine
    (found,) = json.loads(path.read_text())["floods"]
    assert found["failed"] == 0
    assert found["answered"] > 50
    assert len(found["ratios"]) == 1
    assert "rapid reset" in done.output


def test_a_flood_that_does_not_exist_is_refused() -> None:
    done = CliRunner().invoke(abuse, ["--floods=rain"])
    assert done.exit_code == 2
    assert "there is no flood 'rain'" in done.output
