"""Reads a Report back from the JSON that it was written as."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from inferd.bench.result import SCHEMA, Report
from inferd.errors import StartError


def load_report(path: Path) -> Report:
    """Read a Report. Raises StartError if the file cannot be read or is not one of this version's."""
    try:
        raw = path.read_bytes()
        stored = json.loads(raw)
    except OSError as err:
        raise StartError(f"{path}: cannot be read: {err.strerror}") from err
    except ValueError as err:
        raise StartError(f"{path}: not JSON; name a file that `inferd bench` wrote") from err
    schema = stored.get("schema") if isinstance(stored, dict) else None
    if schema is None:
        raise StartError(f"{path}: not a report; name a file that `inferd bench` wrote")
    if schema != SCHEMA:
        raise StartError(
            f"{path}: has schema {schema!r}, this version reads {SCHEMA!r}; measure again with this version"
        )
    try:
        return Report.model_validate_json(raw)
    except ValidationError as err:
        first = err.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the report"
        raise StartError(f"{path}: damaged or edited: {where}: {first['msg']}") from err
