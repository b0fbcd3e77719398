"""The status page in a real browser: what it shows, that nothing is in its way, and that it needs no mouse."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import onnx_models as models
import pytest

from . import browser
from .browser import Page, browsing
from .calls import code_of, request, rows
from .process import Server

needs_browser = pytest.mark.skipif(browser.program() is None, reason="no Chromium; `make tools` installs one")
CLICK = "[...document.querySelectorAll('button, a')].find((one) => one.textContent == '{}').click()"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a good model, a broken one, and a request that was refused."""
    folder = tmp_path_factory.mktemp("watched")
    repository = folder / "repository"
    models.write(repository, "scale", models.scale())
    models.write(repository, "text", models.identity("BYTES", ["rows", 2]))
    models.write(repository, "large", models.identity("FP32", ["rows", 200, 200]))
    (repository / "broken" / "1").mkdir(parents=True)
    (repository / "broken" / "1" / "model.onnx").write_bytes(b"no model")
    # The page is the same on both.
    transport = "native" if find_spec("inferd._native.h2") else "grpcio"
    one = Server(repository, folder, transport, ("--models-strict=false", "--warmup-budget-ms=0"), {})
    with one.while_ready():
        with one.stub() as stub:
            stub.ModelInfer(request("scale", x=rows(1)))
            for _ in range(2):
                code_of(lambda: stub.ModelInfer(request("scale", x=rows(1, width=3))))
        yield one


@pytest.fixture(scope="module")
def page(watched: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browsing(tmp_path_factory.mktemp("browser")) as tab:
        yield tab
        # The browser itself reports answers that are meant here: a refusal, and none.
        meant = ("status of 400", "net::ERR_")
        assert not [one for one in tab.complaints if not any(text in one for text in meant)]


def home(server: Server, rest: str = "") -> str:
    return f"http://127.0.0.1:{server.http_port}/{rest}"


def opened(page: Page, server: Server, rest: str = "") -> Page:
    page.look()
    page.open("about:blank")
    page.open(home(server, rest))
    page.wait("document.querySelector('#readiness')?.textContent == 'ready'")
    return page


# --- what the server gives ------------------------------------------------------------------------------


def test_the_document_counts_what_was_asked(watched: Server) -> None:
    status, told = watched.http("/status.json")
    assert status == 200
    by_name = {one["name"]: one for one in told["models"]}
    assert {name: one["state"] for name, one in by_name.items()} == {
        "broken": "FAILED",
        "large": "READY",
        "scale": "READY",
        "text": "READY",
    }
    assert by_name["scale"]["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4], "optional": False}]
    assert sum(by_name["scale"]["request"]["counts"]) == sum(by_name["scale"]["codes"].values())
    assert by_name["scale"]["codes"]["INVALID_ARGUMENT"] >= 2


def test_errors_are_told_as_clients_were_told(server: Callable[..., Server], repository: Path) -> None:
    models.write(repository, "scale", models.scale())
    one = server(repository)
    with one.stub() as stub:
        for _ in range(2):
            code_of(lambda: stub.ModelInfer(request("scale", x=rows(1, width=3))))
    told = one.http("/status.json")[1]["errors"]
    assert [(told_once["code"], told_once["count"]) for told_once in told] == [("INVALID_ARGUMENT", 2)]


def test_nothing_comes_from_elsewhere(watched: Server) -> None:
    with urllib.request.urlopen(home(watched), timeout=10) as answer:
        policy, text = answer.headers["content-security-policy"], answer.read().decode()
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http://" not in text
    assert "https://" not in text


def test_why_a_model_failed_is_for_the_log(watched: Server) -> None:
    told = watched.http("/status.json")[1]
    (broken,) = (one for one in told["models"] if one["name"] == "broken")
    assert "reason" not in broken
    assert "model.onnx" not in json.dumps(told)


@pytest.mark.parametrize("path", ["/page/", "/page/status.py", "/page/..%2f__init__.py", "/page/index.html"])
def test_only_the_files_of_the_page_are_served(watched: Server, path: str) -> None:
    assert watched.http(path)[0] == 404


def test_the_page_can_be_turned_off(server: Callable[..., Server], repository: Path) -> None:
    models.write(repository, "scale", models.scale())
    one = server(repository, "--http-status-page=false")
    assert [one.http(path)[0] for path in ("/", "/status.json", "/page/status.js", "/ready")] == [404, 404, 404, 200]


# --- in a browser ------------------------------------------------------------------------------------------


@needs_browser
def test_every_model_is_listed_with_its_state(page: Page, watched: Server) -> None:
    opened(page, watched)
    page.wait("document.querySelectorAll('.models tbody tr').length == 4")
    listed = page.eval("[...document.querySelectorAll('.models tbody tr')].map((row) => row.innerText).join('|')")
    broken, _, scale, _ = listed.split("|")
    assert "failed" in broken
    assert "ready" in scale
    assert "input 'x' has shape [1, 3]" in page.text()


@needs_browser
def test_figures_follow_the_load(page: Page, watched: Server) -> None:
    opened(page, watched)
    shown = "parseFloat(document.querySelector('.tile .value').textContent.replace(',', ''))"
    with watched.stub() as stub:
        for seed in range(40):
            stub.ModelInfer(request("scale", x=rows(seed)))
        page.wait(f"{shown} > 0")
        page.wait("/[µm]s/.test(document.querySelectorAll('.tile .unit')[1].textContent)")


@needs_browser
def test_a_model_is_tried_with_the_keyboard_alone(page: Page, watched: Server) -> None:
    opened(page, watched)
    page.wait("document.querySelector('.models a[href*=scale]')")
    page.eval("document.querySelector('.models a[href*=scale]').focus()")
    page.press("Enter", 13, "\r")
    page.wait("document.querySelector('h1')?.textContent.startsWith('scale')")
    assert page.eval("document.activeElement.id") == "main"
    page.wait("document.querySelector('textarea')")
    page.eval("document.querySelector('textarea').focus()")
    tried = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]})
    page.eval(f"document.querySelector('textarea').value = {json.dumps(tried)}")
    page.press("Enter", 13, "\r", modifiers=2)
    page.wait("document.querySelector('.result .output')")
    assert page.eval("document.querySelector('.output pre').textContent") == "2  4  6  8"


@needs_browser
def test_the_example_of_every_model_is_accepted(page: Page, watched: Server) -> None:
    for name in ("scale", "text"):
        opened(page, watched, f"#/model/{name}/1")
        page.wait("document.querySelector('textarea')")
        for button in ("Zeros", "Random"):
            page.eval(CLICK.format(button))
            page.eval("document.querySelector('.result').replaceChildren()")
            page.eval(CLICK.format("Run"))
            page.wait("document.querySelector('.outcome')")
            assert page.text().count("Answered") == 1, page.text()


@needs_browser
def test_an_input_that_is_too_large_to_write_out_is_told(page: Page, watched: Server) -> None:
    opened(page, watched, "#/model/large/1")
    page.wait("document.querySelector('textarea')")
    assert "IN (40,000 elements)" in page.text()
    assert page.eval("document.querySelector('textarea').value.length") < 500


@needs_browser
def test_what_is_wrong_is_said_where_it_was_tried(page: Page, watched: Server) -> None:
    opened(page, watched, "#/model/scale/1")
    page.wait("document.querySelector('textarea')")
    page.eval("document.querySelector('textarea').value = '{'")
    page.eval(CLICK.format("Run"))
    page.wait("document.querySelector('.outcome')?.textContent.startsWith('Not sent')")
    page.eval("document.querySelector('textarea').value = '{\"inputs\": []}'")
    page.eval(CLICK.format("Run"))
    page.wait("document.querySelector('.outcome')?.textContent.startsWith('Refused with 400')")


@needs_browser
def test_the_page_follows_a_pause(page: Page, watched: Server) -> None:
    opened(page, watched)
    page.eval(CLICK.format("Pause"))
    assert page.eval("document.querySelector('#pause').getAttribute('aria-pressed')") == "true"
    page.eval(CLICK.format("Resume"))
    assert page.eval("document.querySelector('#pause').getAttribute('aria-pressed')") == "false"


@needs_browser
@pytest.mark.parametrize("rest", ["", "#/model/scale/1"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_phone_shows_all_of_it_without_scrolling_sideways(page: Page, watched: Server, rest: str, dark: bool) -> None:
    opened(page, watched, rest)
    page.look(width=360, height=740, phone=True, dark=dark)
    page.wait("document.querySelector('.tile')")
    assert page.eval("document.documentElement.scrollWidth") <= 360


CONTRASTS = """
(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const paint = (colours) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const one of colours) { canvas.fillStyle = one; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((part) => part / 255);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const poor = [];
  for (const one of document.querySelectorAll("body *")) {
    const own = [...one.childNodes].some((node) => node.nodeType == 3 && node.textContent.trim());
    if (!own || !one.checkVisibility() || one.closest(".quiet, .skip, noscript")) continue;
    const behind = [];
    for (let at = one; at; at = at.parentElement) behind.unshift(getComputedStyle(at).backgroundColor);
    const back = light(paint(behind)), front = light(paint([...behind, getComputedStyle(one).color]));
    const ratio = (Math.max(back, front) + 0.05) / (Math.min(back, front) + 0.05);
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${one.tagName} ${one.className} ${one.textContent.slice(0, 30)}`);
  }
  return poor;
})()
"""


@needs_browser
@pytest.mark.parametrize("rest", ["", "#/model/scale/1", "#/model/broken/1"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_text_can_be_read(page: Page, watched: Server, rest: str, dark: bool) -> None:
    """Contrast of 4.5 to 1 or more, as WCAG 2.2 asks at level AA."""
    opened(page, watched, rest)
    page.look(dark=dark)
    page.wait("document.querySelector('.tile')")
    assert page.eval(CONTRASTS) == []


@needs_browser
@pytest.mark.parametrize("rest", ["", "#/model/scale/1"])
def test_everything_to_use_has_a_name_for_screen_readers(page: Page, watched: Server, rest: str) -> None:
    opened(page, watched, rest)
    page.wait("document.querySelector('.tile')")
    nodes = page.send("Accessibility.getFullAXTree")["nodes"]
    used = [
        (one["role"]["value"], one.get("name", {}).get("value", ""))
        for one in nodes
        if not one["ignored"] and one["role"]["value"] in ("button", "link", "textbox", "list", "table", "heading")
    ]
    assert {role for role, _ in used} >= {"button", "link", "heading"}
    unnamed = [role for role, name in used if not name and role not in ("list", "table")]
    assert not unnamed
    first = next(name for role, name in used if role == "heading")
    assert first == "Overview" or first.startswith("scale")


@needs_browser
def test_a_server_that_is_gone_is_told(server: Callable[..., Server], repository: Path, page: Page) -> None:
    models.write(repository, "scale", models.scale())
    one = server(repository)
    opened(page, one)
    one.stop()
    page.wait("document.querySelector('#lost') && !document.querySelector('#lost').hidden")
    assert "No answer" in page.text()
    page.open("about:blank")
