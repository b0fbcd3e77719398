"""Credentials in URLs are nowhere to be read: not in settings that are shown, nor in refusals, nor in the log."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.config import load, masked, shown
from inferd.errors import SettingsError
from inferd.telemetry.logs import HumanFormatter, JsonFormatter

SECRET = "pass-not-to-be-read"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (f"http://user:{SECRET}@collector:4318/v1/traces", "http://***@collector:4318/v1/traces"),
        (f"https://{SECRET}@collector", "https://***@collector"),
        (f"http://user:{SECRET}/more@collector", "http://***@collector"),
        (f"http://user:{SECRET}@more@collector", "http://***@collector"),
        (f"http://collector/v1?key={SECRET}&tier=1#top", "http://collector/v1?key=***&tier=***#top"),
        (f"'http://u:{SECRET}@a' and 'http://u:{SECRET}@b'", "'http://***@a' and 'http://***@b'"),
    ],
)
def test_what_a_url_says_of_its_caller_is_masked(text: str, seen: str) -> None:
    assert masked(text) == shown(text) == seen
    record = logging.LogRecord("inferd", logging.ERROR, "", 0, text, (), None)
    record.endpoint = text
    record.failure = ValueError(text)
    for formatter in (JsonFormatter(), HumanFormatter()):
        line = formatter.format(record)
        assert SECRET not in line
        assert "***" in line


@pytest.mark.parametrize(
    "text", ["http://127.0.0.1:4317", "a@b", "user:word@host", "0.5", "http://[::1]:4317/v1/traces"]
)
def test_other_text_is_as_it_is(text: str) -> None:
    assert masked(text) == text


@given(st.text(alphabet="ab:/@?=&# '\"", max_size=40))
def test_masking_what_is_masked_changes_nothing(text: str) -> None:
    once = masked(f"http://{text}")
    assert masked(once) == once


def test_a_setting_that_is_refused_is_masked_too() -> None:
    with pytest.raises(SettingsError) as refused:
        load({}, {"INFERD_TRACING_ENDPOINT": f"http://user:{SECRET}@" + "h" * 3000})
    assert SECRET not in str(refused.value)
    assert "tracing.endpoint" in str(refused.value)


def test_a_long_text_is_not_cut_in_the_middle_of_a_password() -> None:
    record = logging.LogRecord("inferd", logging.ERROR, "", 0, "x" * 4070 + f" http://user:{SECRET * 9}@host", (), None)
    assert SECRET[:8] not in JsonFormatter().format(record)
