"""The CPU image, really built with buildah on a base made here, and its process answers. Wants root and minutes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx_models as models
import psutil
import pytest
from serve.calls import arrays, request, rows
from serve.process import Server, free_ports
from serve.proxies.front import until

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "image"
MIRROR = "http://deb.debian.org/debian"
NOT_IN_SLIM = (
    "usr/share/doc", "usr/share/info", "usr/share/lintian", "usr/share/locale", "usr/share/man",
    "var/cache/apt/archives", "var/lib/apt/lists",
)  # fmt: skip
# Neither overlay mounts nor namespaces, which machines that are containers themselves often lack.
BUILDAH = ("buildah", "--storage-driver=vfs", f"--root={WORK / 'storage'}", f"--runroot={WORK / 'run'}")

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for debootstrap and buildah"),
    pytest.mark.skipif(
        not (shutil.which("buildah") and shutil.which("debootstrap")), reason="needs buildah and debootstrap"
    ),
]


def buildah(*arguments: str | Path) -> str:
    done = subprocess.run([*BUILDAH, *arguments], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout.strip()


@pytest.fixture(scope="module")
def image() -> str:
    """The image, built anew; its base, a small Debian, is made once."""
    base = WORK / "base"
    if not (base / "etc" / "debian_version").exists():
        shutil.rmtree(base, ignore_errors=True)
        subprocess.run(["debootstrap", "--variant=minbase", "bookworm", base, MIRROR], check=True, capture_output=True)
    # As small as Debian's own image is that the Dockerfile names: those are without these too.
    for part in NOT_IN_SLIM:
        shutil.rmtree(base / part, ignore_errors=True)
    # What this machine trusts and where its pip looks, for the time of the build.
    (base / "etc/ssl/certs").mkdir(parents=True, exist_ok=True)
    authorities = Path("/etc/ssl/certs/ca-certificates.crt")
    if authorities.exists():
        shutil.copy(authorities, base / "etc/ssl/build-authorities.crt")
        (base / "etc/pip.conf").write_text("[global]\ncert = /etc/ssl/build-authorities.crt\n")
    container = buildah("from", "scratch")
    buildah("copy", "--quiet", container, base, "/")
    buildah("commit", "--quiet", container, "localhost/base")
    buildah("rm", container)
    buildah("bud", "--layers", "--isolation=chroot", "--format=docker", "--pull-never",
            "--build-arg=BASE=localhost/base", "--tag=localhost/inferd", "--file=Dockerfile", ".")  # fmt: skip
    return "localhost/inferd"


def test_the_image_says_who_it_is_and_how_it_is_run(image: str) -> None:
    config = json.loads(buildah("inspect", "--type=image", image))["Docker"]["config"]
    assert config["User"] == "65532:65532"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Entrypoint"] == ["inferd"]
    assert config["Healthcheck"]["Test"] == ["CMD", "inferd", "health"]
    assert config["Labels"]["org.opencontainers.image.title"] == "inferd"


def test_its_process_answers_says_it_is_well_writes_nothing_and_stops(image: str, tmp_path: Path) -> None:
    models.write(tmp_path / "models", "scale", models.scale())
    for path in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        path.chmod(0o755)
    container = buildah("from", "--pull-never", image)
    try:
        root = Path(buildah("mount", container))
        found, base = size(root) / 1e6, size(WORK / "base") / 1e6
        print(f"\nthe image's files: {found:.0f} MB, of them the base {base:.0f} MB")
        said = re.search(
            r"files are (\d+) MB, of which the base made here is (\d+)", (ROOT / "docs/docker.md").read_text()
        )
        assert said is not None
        assert (int(said[1]), int(said[2])) == (pytest.approx(found, rel=0.05), pytest.approx(base, rel=0.05))
        assert not (root / "opt/inferd/bin/pip").exists()
        assert not list((root / "usr/bin").glob("*gcc*"))
        assert not list(root.glob("var/cache/**/*.bin")) + list(root.glob("var/cache/**/*.deb"))
        assert not list(root.glob("opt/inferd/lib/python*/site-packages/**/tests"))
        before = everything(root)
        server = Contained(root, container, tmp_path)
        with server.while_ready(), server.stub() as stub:
            answer = stub.ModelInfer(request("scale", x=rows(1)), timeout=30)
            assert np.array_equal(arrays(answer)["y"], rows(1) * np.float32(2))
            inside = psutil.Process(server.inner_pid())
            assert inside.uids().real == 65532
            assert server.probe().returncode == 0
        assert server.probe().returncode == 2
        # What runs so also runs on a read-only root.
        assert everything(root) == before
    finally:
        buildah("rm", container)


class Contained(Server):
    """The image's own command, in a container, on ports of our own."""

    def __init__(self, root: Path, container: str, folder: Path) -> None:
        self.container = container
        self.grpc_port, self.http_port, self.metrics_port = free_ports(3)
        self.address = f"127.0.0.1:{self.grpc_port}"
        self._stdout, self._stderr = folder / "stdout", folder / "stderr"
        flags = (
            f"--grpc-port={self.grpc_port}",
            f"--http-port={self.http_port}",
            f"--metrics-port={self.metrics_port}",
        )
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*BUILDAH, "run", "--isolation=chroot", f"--volume={folder / 'models'}:/models:ro", container,
                 "--", "inferd", "serve", "--host=127.0.0.1", *flags],
                stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
            )  # fmt: skip

    def inner_pid(self) -> int:
        """The process of inferd itself, below those of buildah."""
        below = psutil.Process(self.process.pid).children(True)
        [found] = [one.pid for one in below if "serve" in one.cmdline() and "buildah" not in one.cmdline()[0]]
        return found

    def terminate(self) -> None:
        """As an engine does: the signal of STOPSIGNAL to the process inside."""
        until(lambda: self.health() in ("SERVING", "NOT_SERVING"), "the start")
        os.kill(self.inner_pid(), 15)

    def probe(self) -> subprocess.CompletedProcess[Any]:
        command = [*BUILDAH, "run", "--isolation=chroot", self.container, "--", "inferd", "health"]
        return subprocess.run([*command, f"--address={self.address}"], capture_output=True, check=False, timeout=60)


def everything(root: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file of the image, but where the container's engine writes itself."""
    return {
        str(path.relative_to(root)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in root.rglob("*")
        if not path.is_dir() and path.relative_to(root).parts[0] not in ("proc", "sys", "dev", "run", "models")
        and str(path.relative_to(root)) not in ("etc/hosts", "etc/resolv.conf", "etc/hostname")
    }  # fmt: skip


def size(root: Path) -> int:
    """Bytes of all files, each counted once however many names it has."""
    return sum(
        {(found := path.lstat()).st_ino: found.st_size for path in root.rglob("*") if not path.is_dir()}.values()
    )
