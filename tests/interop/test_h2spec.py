"""h2spec, which breaks HTTP/2 and HPACK in every way that their RFCs name, against `inferd serve`.

Its requests are GETs, which a gRPC server answers as soon as their headers have come. Then it goes on to do wrong on
the same stream and waits to hear of it, so what it sends at a time is made to reach the server at a time: what comes
for a stream that is closed already may be discarded (RFC 9113 section 5.1), and which came first would be chance.

Known with libnghttp2 1.52; later ones keep no streams that are closed, and may discard more.
"""

from __future__ import annotations

import asyncio
import html
import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx_models as models
import pytest
from serve.calls import arrays, request, rows
from serve.process import Server

from .gathering import gathering

CASES = 146
"""All that this version of h2spec has."""

KNOWN = {
    "http2/3.5/2": (
        "sends an HTTP/1.1-like line instead of the preface, and cannot read the HTTP/1.1 answer that tells a person "
        "why. The connection is closed after it. RFC 9113 section 3.4: 'A GOAWAY frame (Section 6.8) MAY be omitted in "
        "this case, since an invalid preface indicates that the peer is not using HTTP/2.'"
    ),
}

# Five headers of this size, Huffman-coded, make a frame larger than we take: one case needs that.
MAX_HEADER_LENGTH = 60_000
# A case that waits in vain takes all of it.
CASE_TIMEOUT_S = 5
RUN_TIMEOUT_S = 300.0
PAUSE_S = 0.01
# On a loaded machine h2spec itself may be held up in the middle of what it sends at a time.
LONG_PAUSE_S = 0.5
MAX_DOUBTS = 10


@dataclass(frozen=True)
class Found:
    """What came of all cases; "" of those that passed."""

    verdicts: dict[str, str]
    answer: np.ndarray


@pytest.fixture(scope="module")
def found(h2spec: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder = tmp_path_factory.mktemp("h2spec")
    repository = folder / "repository"
    models.write(repository, "scale", models.scale())
    server = Server(repository, folder, "native", ("--warmup-budget-ms=0", "--batching-learn=false"), {})
    with server.while_ready():
        verdicts = asyncio.run(ask(h2spec, server.grpc_port, PAUSE_S, folder))
        doubtful = [case for case, said in verdicts.items() if said and case not in KNOWN]
        for case in doubtful[:MAX_DOUBTS]:
            [verdicts[case]] = asyncio.run(ask(h2spec, server.grpc_port, LONG_PAUSE_S, folder, case)).values()
        with server.stub() as stub:
            answer = stub.ModelInfer(request("scale", x=rows(seed=0)), timeout=10)
    return Found(verdicts, arrays(answer)["y"])


async def ask(h2spec: Path, port: int, quiet_s: float, folder: Path, *cases: str) -> dict[str, str]:
    """What h2spec says of these cases, or of all."""
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    async with gathering(port, quiet_s) as relay, asyncio.timeout(RUN_TIMEOUT_S):
        process = await asyncio.create_subprocess_exec(
            h2spec, "--host=127.0.0.1", f"--port={relay}", "--strict", f"--timeout={CASE_TIMEOUT_S}",
            f"--max-header-length={MAX_HEADER_LENGTH}", f"--junit-report={report}", *cases,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert report.exists(), said.decode("utf-8", "replace")
    return read(report.read_text("utf-8", "replace"))


def read(report: str) -> dict[str, str]:
    """What a JUnit report says of its cases, numbered as h2spec's command line wants them if they are all there."""

    def quoted(error: re.Match[str]) -> str:
        # What came from the server stands there as it came, and need not be XML.
        return "<error>" + html.escape(re.sub(r"[^ -~\n]", "?", error[1])) + "</error>"

    verdicts = {}
    for suite in ElementTree.fromstring(re.sub("<error>(.*?)</error>", quoted, report, flags=re.DOTALL)):
        for number, case in enumerate(suite.iter("testcase"), 1):
            wrong = [case.find(kind) for kind in ("error", "failure", "skipped")]
            said = "; ".join(f"{one.tag}: {one.text or ''}" for one in wrong if one is not None)
            verdicts[f"{suite.get('package')}/{number}"] = said and f"{case.get('classname')}: {said}"
    return verdicts


def test_every_case_is_run(found: Found) -> None:
    assert len(found.verdicts) == CASES


def test_no_case_fails_but_those_that_the_table_explains(found: Found) -> None:
    assert not {case: said for case, said in found.verdicts.items() if said and case not in KNOWN}


def test_a_case_that_the_table_explains_fails(found: Found) -> None:
    assert not [case for case in KNOWN if not found.verdicts[case]]


def test_the_server_answers_an_inference_afterwards(found: Found) -> None:
    np.testing.assert_array_equal(found.answer, 2 * rows(seed=0))
