"""Pictures of the status page for the docs: `make screens` writes docs/images."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import onnx_models as models
from PIL import Image

from .browser import browsing
from .calls import code_of, request, rows
from .process import Server

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
RATES = {"churn": 900, "ranking": 350, "embedding": 120}


def main() -> int:
    """A server with load, looked at in light and dark, on a desk and on a phone."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repository = folder / "models"
        models.write(repository, "churn", models.mlp())
        models.write(repository, "ranking", models.scale(), version=3)
        models.write(repository, "embedding", models.embedding())
        (repository / "broken" / "1").mkdir(parents=True)
        (repository / "broken" / "1" / "model.onnx").write_bytes(b"this is no model")
        server = Server(repository, folder, "native", ("--models-strict=false",), {})
        with server.while_ready():
            loads = [
                subprocess.Popen(
                    [sys.executable, "-m", "inferd", "bench", server.address, model, f"--rate={rate}", *LOAD],
                    stdout=subprocess.DEVNULL,
                )
                for model, rate in RATES.items()
            ]
            try:
                _refused(server)
                _pictures(server, folder)
            finally:
                for load in loads:
                    load.terminate()
                    load.wait()
    return 0


LOAD = ("--warmup=0", "--window=60")


def _refused(server: Server) -> None:
    with server.stub() as stub:
        for _ in range(3):
            code_of(lambda: stub.ModelInfer(request("churn", x=rows(1, width=3))))
        code_of(lambda: stub.ModelInfer(request("chrun", x=rows(1))))
        code_of(lambda: stub.ModelInfer(request("broken", x=rows(1))))


def _pictures(server: Server, folder: Path) -> None:
    profile = folder / "profile"
    profile.mkdir()
    home = f"http://127.0.0.1:{server.http_port}/"
    with browsing(profile) as page:
        page.look()
        page.open(home)
        page.wait("document.querySelectorAll('.models tbody tr').length == 4")
        time.sleep(25)  # of figures, for the lines that show the last minute
        page.picture(IMAGES / "status.png")
        page.look(dark=True)
        page.picture(IMAGES / "status-dark.png")
        page.eval("document.querySelector('.models a[href*=churn]').click()")
        page.wait("document.querySelector('textarea')")
        page.eval("[...document.querySelectorAll('button')].find((one) => one.textContent == 'Random').click()")
        page.eval("document.querySelector('form').requestSubmit()")
        page.wait("document.querySelector('.output')")
        time.sleep(1.5)  # until the bars stand still
        page.picture(IMAGES / "status-model-dark.png")
        page.look()
        page.picture(IMAGES / "status-model.png")
        page.look(width=390, height=844, phone=True)
        page.picture(IMAGES / "status-model-phone.png")
        page.look(width=390, height=844, phone=True, dark=True)
        page.open(home)
        page.wait("document.querySelectorAll('.models tbody tr').length == 4")
        time.sleep(3)
        page.picture(IMAGES / "status-phone-dark.png")
        assert not page.complaints, page.complaints
    for path in IMAGES.glob("status*.png"):
        _smaller(path)


def _smaller(path: Path) -> None:
    """A third of the size: the page has few colours."""
    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(96, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
