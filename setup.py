"""Builds what is compiled: the Cython modules of ext/ and the protobuf stubs of proto/.

Everything declarative is in pyproject.toml. Switches, read from the environment of the build:

  INFERD_DEBUG=1      bounds checks on, counters of live native objects (see ext/live.pxd)
  INFERD_SANITIZE=1   AddressSanitizer and UndefinedBehaviorSanitizer
  INFERD_FUZZ=1       those, and for libFuzzer a count of every edge taken; needs CC=clang
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
DEBUG = os.environ.get("INFERD_DEBUG") == "1"
FUZZ = os.environ.get("INFERD_FUZZ") == "1"
SANITIZE = FUZZ or os.environ.get("INFERD_SANITIZE") == "1"
# The native transport and the load runner; without the library everything else is built all the same.
NEED_NGHTTP2 = {
    "client", "crowd", "guard", "handler", "h2", "header", "hub", "infer", "infer_stream", "inlet", "load",
    "options", "outlet", "session", "stranger", "stream", "tally",
}  # fmt: skip


def generate_stubs() -> None:
    """Generate inferd/proto/*_pb2*.py from proto/*.proto, registered in a descriptor pool of our own.

    Other packages (tritonclient, KServe's SDK) define the same message names. In the default pool
    the second one imported would fail; in a pool of our own nobody meets. See docs/adr/0002.
    """
    target = ROOT / "inferd" / "proto"
    sources = sorted((ROOT / "proto").glob("*.proto"))
    newest = max(source.stat().st_mtime for source in [*sources, ROOT / "setup.py"])
    wanted = [target / f"{source.stem}_pb2.py" for source in sources]
    if all(path.exists() and path.stat().st_mtime >= newest for path in wanted):
        return
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"--proto_path={ROOT / 'proto'}",
            f"--python_out={target}",
            f"--pyi_out={target}",
            f"--grpc_python_out={target}",
            *[str(source) for source in sources],
        ],
        check=True,
    )
    (target / "model_config_pb2_grpc.py").unlink(missing_ok=True)  # it has no service
    for path in target.glob("*_pb2*.py*"):
        text = re.sub(r"^import (\w+_pb2) as", r"from inferd.proto import \1 as", path.read_text(), flags=re.M)
        # protoc leaves Mapping without its arguments, which strict type checkers do not take.
        text = text.replace(", _Mapping]]", ", _Mapping[str, _Any]]]").replace(", **kwargs)", ", **kwargs: _Any)")
        text = text.replace("from typing import ", "from typing import Any as _Any, ", 1)
        if path.name.endswith("_pb2.py"):
            text, count = re.subn(r"_descriptor_pool\.Default\(\)", "_inferd_pool.POOL", text)
            if count != 1:
                raise SystemExit(f"setup.py: {path.name} does not register itself as expected; see docs/adr/0002")
            marker = "from google.protobuf import descriptor_pool as _descriptor_pool"
            text = text.replace(marker, "from inferd.proto import pool as _inferd_pool")
        path.write_text(text)


class BuildPyWithStubs(build_py):
    """build_py that has the stubs there before it collects the package's files."""

    def run(self) -> None:
        """Generate, then collect."""
        generate_stubs()
        super().run()


def has_nghttp2() -> bool:
    """Whether the compiler finds the library's header."""
    command = [*shlex.split(sysconfig.get_config_var("CC")), "-E", "-x", "c", "-"]
    return subprocess.run(command, input=b"#include <nghttp2/nghttp2.h>", capture_output=True).returncode == 0


def extensions() -> list[Extension]:
    """One extension per ext/*.pyx, compiled as inferd._native.<stem>.

    Cython finds a cimported .pxd by package path, so it is shown ext/ under the name
    inferd/_native through a link inside build/.
    """
    view = ROOT / "build" / "ext" / "inferd"
    view.mkdir(parents=True, exist_ok=True)
    (view / "__init__.py").touch()
    link = view / "_native"
    if not link.is_symlink():
        link.symlink_to(Path("..") / ".." / ".." / "ext", target_is_directory=True)
    flags = ["-std=c11", "-Wall", "-Wno-unused-function", "-fvisibility=hidden"]
    flags += ["-O1", "-g"] if SANITIZE or DEBUG else ["-O3", "-g1"]
    link_flags: list[str] = []
    if SANITIZE:
        # Python builds with -fwrapv, which would make signed overflow nothing to report.
        flags += ["-fsanitize=address,undefined", "-fno-wrapv", "-fno-omit-frame-pointer"]
    if FUZZ:
        # Nothing to link: the library that is preloaded holds libFuzzer and both sanitizers. Cython adds 0 to NULL and
        # calls methods by pointers of another type, as CPython does.
        flags += ["-fsanitize=fuzzer-no-link", "-fno-sanitize=pointer-overflow,function"]
    elif SANITIZE:
        link_flags += ["-fsanitize=address,undefined"]
    macros = [("INFERD_DEBUG", "1" if DEBUG or SANITIZE else "0")]
    sources = sorted((ROOT / "ext").glob("*.pyx"))
    if not has_nghttp2():
        print(f"setup.py: no nghttp2 headers (Debian: libnghttp2-dev), so without {', '.join(sorted(NEED_NGHTTP2))}")
        sources = [source for source in sources if source.stem not in NEED_NGHTTP2]
    found = [
        Extension(
            f"inferd._native.{source.stem}",
            [os.path.join("build", "ext", "inferd", "_native", source.name)],
            extra_compile_args=flags,
            extra_link_args=link_flags,
            libraries=["nghttp2"] if source.stem in NEED_NGHTTP2 else [],
            define_macros=macros,
            depends=[str(path.relative_to(ROOT)) for path in (ROOT / "ext").glob("*.pxd")],
        )
        for source in sources
    ]
    checked = DEBUG or SANITIZE
    return cythonize(
        found,
        include_path=[os.path.join("build", "ext")],
        # Apart, because the directives below change the C code: neither kind of build may find the other's.
        build_dir=os.path.join("build", "checked" if checked else "release"),
        annotate=DEBUG,
        force=checked,
        compiler_directives={
            "language_level": "3",
            "freethreading_compatible": False,
            "boundscheck": checked,
            "wraparound": False,
            "initializedcheck": checked,
            "cdivision": True,
            "embedsignature": False,
        },
    )


generate_stubs()
setup(ext_modules=extensions(), cmdclass={"build_py": BuildPyWithStubs})
