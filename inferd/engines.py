"""Where TensorRT's engines are kept: below one folder of the server's, whatever a model asks for.

An engine is code to whoever loads it, so its folder is made for this user alone, and one that others may write to is
not used.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from inferd.errors import ModelFailed
from inferd.repository import TENSORRT_CACHES

OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def with_folders(
    options: Mapping[str, str], root: Path | None, model: str, version: int
) -> tuple[Mapping[str, str], list[str]]:
    """The options of the TensorRT provider, with a folder for each cache that is on, and warnings.

    Without `root` nothing is kept. Raises ModelFailed for a folder that is not below it, or that others may write to.
    """
    made = {key: value for key, value in options.items() if key not in TENSORRT_CACHES.values()}
    warnings = []
    for switch, path in TENSORRT_CACHES.items():
        if options.get(switch) != "True":
            continue
        if root is None:
            made[switch] = "False"
            warnings.append(
                f"config.pbtxt: {switch} is without effect: device.cache_path names no folder to keep it in"
            )
        else:
            made[path] = str(_own_folder(root, options.get(path) or f"tensorrt/{model}/{version}"))
    return made, warnings


def _own_folder(root: Path, said: str) -> Path:
    """The folder, made where there is none."""
    try:
        base = root.resolve()
        found = (base / said).resolve()
        if not found.is_relative_to(base):
            raise ModelFailed(
                f"config.pbtxt asks for {said!r} as the folder of a cache; give one below device.cache_path, or none"
            )
        found.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = found.stat()
    except OSError as failure:
        raise ModelFailed(
            f"device.cache_path: the folder for TensorRT's engines cannot be made: {failure.strerror}"
        ) from failure
    if state.st_mode & OTHERS_WRITE or state.st_uid not in (os.geteuid(), 0):
        raise ModelFailed(
            "device.cache_path: others may write to the folder of TensorRT's engines, which are run as code; "
            "make it this user's alone (chmod 700)"
        )
    return found
