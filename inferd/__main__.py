"""``python -m inferd`` is the ``inferd`` command."""

from __future__ import annotations

from inferd.cli import main

main(prog_name="inferd")
