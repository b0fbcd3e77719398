"""Who may use a GPU while a CUDA graph is recorded: nobody else.

ONNX Runtime records in CUDA's global mode, in which an allocation or a wait by any other thread spoils the recording.
Runs share the device; a recording has it alone; a session that is being made or destroyed, which may take seconds,
keeps recordings out without holding up runs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """For all sessions of one GPU."""

    def __init__(self) -> None:
        """Open."""
        self._loads = threading.Lock()
        self._changed = threading.Condition()
        self._runs = 0
        self._captures = False

    @contextmanager
    def run(self) -> Iterator[None]:
        """Beside other runs."""
        with self._changed:
            while self._captures:
                self._changed.wait()
            self._runs += 1
        try:
            yield
        finally:
            with self._changed:
                self._runs -= 1
                if not self._runs:
                    self._changed.notify_all()

    @contextmanager
    def load(self) -> Iterator[None]:
        """Beside runs, not beside a recording or another load."""
        with self._loads:
            yield

    @contextmanager
    def capture(self) -> Iterator[None]:
        """Alone; runs that come now wait until it is over."""
        with self._loads:
            with self._changed:
                self._captures = True
                while self._runs:
                    self._changed.wait()
            try:
                yield
            finally:
                with self._changed:
                    self._captures = False
                    self._changed.notify_all()
