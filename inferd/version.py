"""The version of inferd that is running."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """The version of the installed package, or a placeholder for a source tree that is not installed."""
    try:
        return metadata.version("inferd")
    except metadata.PackageNotFoundError:
        return "0.0.0+source"
