"""Logs: one line per event, whatever the event carries."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.telemetry.logs import ABOUT, HumanFormatter, JsonFormatter, LogHandler, Switches, configure, installed

log = logging.getLogger("inferd.runner")

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root, names = logging.getLogger(), ("inferd", "uvicorn.error", "grpc")
    handlers, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def record(message: str = "loaded", /, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("inferd.runner", logging.INFO, __file__, 1, message, (), None)
    made.created = 1_700_000_000.25
    vars(made).update(extra)
    return made


def as_json(made: logging.LogRecord) -> dict[str, object]:
    text = JsonFormatter().format(made)
    assert "\n" not in text
    loaded: dict[str, object] = json.loads(text)
    return loaded


# --- JSON --------------------------------------------------------------------------------------------


def test_a_json_line_has_time_level_logger_and_message() -> None:
    assert as_json(record()) == {
        "ts": "2023-11-14T22:13:20.250Z",
        "level": "info",
        "logger": "inferd.runner",
        "message": "loaded",
    }


def test_a_whole_second_still_has_milliseconds() -> None:
    made = record()
    made.created = 1_700_000_000.0
    assert as_json(made)["ts"] == "2023-11-14T22:13:20.000Z"


def test_extra_fields_stand_beside_the_message() -> None:
    line = as_json(record(model="mlp", rows=3, ready=True, nothing=None, took_ms=1.5))
    fields = {name: line[name] for name in ("model", "rows", "ready", "nothing", "took_ms")}
    assert fields == {"model": "mlp", "rows": 3, "ready": True, "nothing": None, "took_ms": 1.5}


def test_an_extra_field_cannot_replace_a_field_of_the_line() -> None:
    assert as_json(record(level="fatal", ts="never"))["level"] == "info"


def test_an_exception_is_its_traceback() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    try:
        raise RuntimeError("no such input")
    except RuntimeError:
        log.exception("run failed")
    line = json.loads(stream.getvalue())
    assert line["level"] == "error"
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("RuntimeError: no such input")


@pytest.mark.parametrize("value", [b"\x00" * 100, bytearray(9), memoryview(b"x"), np.zeros(4), object(), range(5)])
def test_a_value_that_could_be_tensor_data_is_written_as_its_type(value: object) -> None:
    assert as_json(record(value=value))["value"] == f"<{type(value).__name__}>"


def test_a_tensor_inside_a_list_is_written_as_its_type() -> None:
    assert as_json(record(value=[1, np.zeros(4)]))["value"] == [1, "<ndarray>"]


def test_a_long_list_is_written_as_its_type() -> None:
    assert as_json(record(value=list(range(33))))["value"] == "<list>"


def test_a_long_text_is_cut_and_says_so() -> None:
    assert str(as_json(record("x" * 5000))["message"]).endswith("... (5000 characters)")


class Colour(Enum):
    RED = 1


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (Path("/models"), "/models"),
        (Colour.RED, "RED"),
        (ValueError("bad"), "ValueError: bad"),
        ({1: {"a": (1, 2)}}, {"1": {"a": [1, 2]}}),
    ],
)
def test_small_values_of_other_types_are_written_as_themselves(value: object, written: object) -> None:
    assert as_json(record(value=value))["value"] == written


@given(message=st.text(), value=JSON_VALUES)
def test_any_event_is_one_line_of_valid_json(message: str, value: object) -> None:
    made = record(message.replace("%", "%%"), value=value)
    assert as_json(made)["logger"] == "inferd.runner"


def test_a_value_that_contains_itself_ends() -> None:
    endless: list[object] = []
    endless.append(endless)
    assert as_json(record(value=endless))["value"] == [[[["<list>"]]]]


# --- for people ----------------------------------------------------------------------------------------


def test_a_human_line_is_time_level_room_message_and_fields() -> None:
    text = HumanFormatter().format(record("model loaded", model="mlp", note="two words", rows=3))
    assert text == '22:13:20.250Z info    runner: model loaded model=mlp note="two words" rows=3'


@given(message=st.text(), value=st.text())
def test_a_human_line_has_no_control_characters(message: str, value: str) -> None:
    assert HumanFormatter().format(record(message, value=value)).isprintable()


def test_a_traceback_follows_the_human_line() -> None:
    stream = io.StringIO()
    configure("info", "human", stream)
    try:
        raise RuntimeError("no such input")
    except RuntimeError:
        log.exception("run failed")
    lines = stream.getvalue().splitlines()
    assert (lines[1], lines[-1]) == ("Traceback (most recent call last):", "RuntimeError: no such input")


@pytest.mark.parametrize(("stream", "coloured"), [(Terminal(), True), (io.StringIO(), False)])
def test_colour_is_only_for_terminals(stream: io.StringIO, coloured: bool) -> None:
    configure("info", "human", stream)
    log.warning("slow")
    assert ("\x1b[33m" in stream.getvalue()) is coloured


# --- the set-up ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "heard"), [("debug", "diwe"), ("info", "iwe"), ("warning", "we"), ("error", "e")])
def test_the_level_decides_what_inferd_says(level: str, heard: str) -> None:
    stream = io.StringIO()
    configure(level, "human", stream)  # type: ignore[arg-type]
    log.debug("d")
    log.info("i")
    log.warning("w")
    log.error("e")
    assert re.findall(r"runner: (\w)", stream.getvalue()) == list(heard)


@pytest.mark.parametrize("name", ["uvicorn.error", "uvicorn.access", "grpc", "grpc._cython.cygrpc", "asyncio"])
def test_libraries_speak_from_warning_up_through_the_same_stream(name: str) -> None:
    stream = io.StringIO()
    configure("info", "human", stream)
    logging.getLogger(name).info("chatter")
    logging.getLogger(name).warning("trouble")
    assert re.findall(r"chatter|trouble", stream.getvalue()) == ["trouble"]


def test_a_handler_that_a_library_brought_is_removed() -> None:
    own = io.StringIO()
    logging.getLogger("uvicorn").addHandler(logging.StreamHandler(own))
    configure("info", "human", io.StringIO())
    logging.getLogger("uvicorn").error("trouble")
    assert own.getvalue() == ""


def test_configuring_again_replaces_instead_of_adding() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure("info", "human", first)
    configure("info", "json", second)
    log.info("once")
    assert (first.getvalue(), second.getvalue().count("once")) == ("", 1)


def test_handlers_of_others_on_the_root_logger_stay() -> None:
    other = logging.NullHandler()
    logging.getLogger().addHandler(other)
    configure("info", "human", io.StringIO())
    assert other in logging.getLogger().handlers


def test_logs_go_to_standard_error_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "human")
    log.info("here")
    captured = capsys.readouterr()
    assert (captured.out, "here" in captured.err) == ("", True)


def test_exactly_one_handler_of_ours_is_installed() -> None:
    configure("info", "human", io.StringIO())
    configure("info", "human", io.StringIO())
    assert [type(handler) for handler in logging.getLogger().handlers].count(LogHandler) == 1


# --- switches ----------------------------------------------------------------------------------------


def heard(switches: Switches) -> list[str]:
    """What comes through of one record of each severity, by ours and by a library."""
    stream = io.StringIO()
    configure("info", "json", stream)
    handler = installed()
    assert handler is not None
    handler.switch(switches)
    for logger in (log, logging.getLogger("grpc")):
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
            logger.log(level, "%s %s", logger.name.split(".")[0], logging.getLevelName(level))
    return [json.loads(line)["message"] for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("switches", "ours", "theirs"),
    [
        (Switches(), "INFO WARNING ERROR CRITICAL", "WARNING ERROR CRITICAL"),
        (Switches(info=False), "WARNING ERROR CRITICAL", "WARNING ERROR CRITICAL"),
        (Switches(warning=False), "INFO ERROR CRITICAL", "ERROR CRITICAL"),
        (Switches(error=False), "INFO WARNING", "WARNING"),
        (Switches(info=False, verbose_level=1), "DEBUG WARNING ERROR CRITICAL", "WARNING ERROR CRITICAL"),
        (Switches(verbose_level=9), "DEBUG INFO WARNING ERROR CRITICAL", "INFO WARNING ERROR CRITICAL"),
        (Switches(info=False, warning=False, error=False), "", ""),
    ],
)
def test_each_severity_is_switched_by_itself(switches: Switches, ours: str, theirs: str) -> None:
    assert heard(switches) == [f"inferd {name}" for name in ours.split()] + [f"grpc {name}" for name in theirs.split()]


@pytest.mark.parametrize(
    ("level", "switches"),
    [
        ("debug", Switches(verbose_level=1)),
        ("info", Switches()),
        ("warning", Switches(info=False)),
        ("error", Switches(info=False, warning=False)),
    ],
)
def test_the_level_sets_the_switches(level: Any, switches: Switches) -> None:
    configure(level, "human", io.StringIO())
    handler = installed()
    assert handler is not None
    assert handler.switches == switches


def test_times_may_have_their_date() -> None:
    stream = io.StringIO()
    configure("info", "human", stream)
    log.info("first")
    handler = installed()
    assert handler is not None
    handler.switch(Switches(dated=True))
    log.info("second")
    first, second = stream.getvalue().splitlines()
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3}Z info ", first)
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info ", second)


def test_without_configure_nothing_is_installed() -> None:
    logging.getLogger().handlers[:] = []
    assert installed() is None


def test_trouble_with_a_call_says_which_call_it_is_and_other_lines_do_not() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    told = ABOUT.set(lambda: {"method": "Some", "trace_id": "ab", "code": "OK"})
    try:
        logging.getLogger("inferd.rpc").info("quiet")
        logging.getLogger("inferd.rpc").error("loud", extra={"code": "INTERNAL"})
    finally:
        ABOUT.reset(told)
    logging.getLogger("inferd.rpc").error("elsewhere")
    quiet, loud, elsewhere = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert "method" not in quiet
    assert (loud["method"], loud["trace_id"], loud["code"]) == ("Some", "ab", "INTERNAL")
    assert "method" not in elsewhere
