"""A headless Chromium, driven over its DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
WAIT_S = 30.0
POLL_S = 0.02


def program() -> str | None:
    """The browser on this machine, None if there is none."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Page:
    """One tab. Whatever the page complains of is in `complaints`."""

    def __init__(self, socket: Any, session: str) -> None:
        self._socket, self._session, self._last = socket, session, 0
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> Any:
        """One command and its result."""
        self._last += 1
        command = {"id": self._last, "method": method, "params": parameters, "sessionId": self._session}
        self._socket.send(json.dumps(command))
        while True:
            told = json.loads(self._socket.recv(timeout=WAIT_S))
            if told.get("id") == self._last and told.get("sessionId") == self._session:
                assert "error" not in told, (method, told["error"])
                return told["result"]
            self._note(told)

    def _note(self, told: dict[str, Any]) -> None:
        if told.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(told["params"]["exceptionDetails"]))
        elif told.get("method") == "Log.entryAdded" and told["params"]["entry"]["level"] == "error":
            entry = told["params"]["entry"]
            self.complaints.append(f"{entry['text']} {entry.get('url', '')}")

    def look(self, *, width: int = 1180, height: int = 820, dark: bool = False, phone: bool = False) -> None:
        """What the screen is like from now on."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url: str) -> None:
        """Go there; the page may still be loading."""
        self.send("Page.navigate", url=url)

    def eval(self, expression: str) -> Any:
        """The value of a JavaScript expression; promises are waited for."""
        made = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in made, made["exceptionDetails"]
        return made["result"].get("value")

    def wait(self, expression: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + WAIT_S
        while not self.eval(f"Boolean({expression})"):
            assert time.monotonic() < end, f"not so after {WAIT_S} s: {expression}\n{self.text()}"
            time.sleep(POLL_S)

    def text(self) -> str:
        """What there is to read."""
        return str(self.eval("document.body ? document.body.innerText : ''"))

    def press(self, key: str, code: int = 0, text: str = "", modifiers: int = 0) -> None:
        """Press a key and let it go."""
        more: dict[str, Any] = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        self.send("Input.dispatchKeyEvent", type="keyDown", **more, **({"text": text} if text else {}))
        self.send("Input.dispatchKeyEvent", type="keyUp", **more)

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """Write what is seen, or the page from top to bottom."""
        made = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(made["data"]))


@contextmanager
def browsing(folder: Path) -> Iterator[Page]:
    """A tab of a browser of its own, whose profile is in `folder`."""
    found = program()
    assert found is not None
    command = [
        found, "--headless", "--remote-debugging-port=0", f"--user-data-dir={folder}", "--disable-gpu", "--no-sandbox",
        "--hide-scrollbars", "--no-first-run", "--disable-dev-shm-usage", "--no-proxy-server", "about:blank",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | {"HOME": str(folder)}
        )
    try:
        told = folder / "DevToolsActivePort"
        end = time.monotonic() + WAIT_S
        while not told.exists() or len(lines := told.read_text().split()) < 2:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end, (folder / "log").read_text()
            time.sleep(POLL_S)
        address = f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        with connect(address, max_size=None, proxy=None, open_timeout=WAIT_S) as socket:
            yield _tab(socket)
    finally:
        process.terminate()
        try:
            process.wait(WAIT_S)
        finally:
            process.kill()
            process.wait()


def _tab(socket: Any) -> Page:
    def send(number: int, method: str, **parameters: Any) -> Any:
        socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (told := json.loads(socket.recv(timeout=WAIT_S))).get("id") != number:
            pass
        return told["result"]

    target = send(-1, "Target.createTarget", url="about:blank")["targetId"]
    return Page(socket, send(-2, "Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
