"""Who takes part in `bench compare`, and who does not: real processes that are missing, die or answer wrongly."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from bench.compare import BUILDS
from bench.contest import Contest
from bench.peers.grpc_aio import GrpcAio
from bench.peers.grpc_cpp import GrpcCpp
from bench.peers.peer import INSIDE, Absent, virtual_environment
from bench.processes import Group, Meter, Start
from bench.result import Entrant, Kind
from bench.works import Prepared, prepare, works


@dataclass(frozen=True)
class Stub:
    """A peer that is whatever command a test gives it; PORT and REPLY in it are replaced."""

    name: str
    command: tuple[str, ...]
    kind: Kind = "peer"
    grpc: bool = True

    def prepare(self, builds: Path) -> Mapping[str, str]:
        return {}

    def start(self, work: Prepared, folder: Path, port: int) -> Start:
        return Start(
            tuple({"PORT": str(port), "REPLY": str(folder / "reply")}.get(word, word) for word in self.command)
        )


@dataclass(frozen=True)
class Canned(GrpcAio):
    """A server that claims to infer and answers these bytes."""

    reply: bytes
    name = "canned"
    kind: Kind = "peer"

    def start(self, work: Prepared, folder: Path, port: int) -> Start:
        start = super().start(work, folder, port)
        (folder / "reply").write_bytes(self.reply)
        return start


@pytest.fixture(scope="module")
def work() -> Prepared:
    return prepare(works()["mlp"], BUILDS / "models")


@pytest.fixture
def contest(work: Prepared) -> Iterator[Contest]:
    with Contest(work, lambda _: None) as made:
        yield made


def only(contest: Contest) -> Entrant:
    (entrant,) = contest.found().entrants
    return entrant


def test_a_peer_that_cannot_be_prepared_is_absent_and_not_zero(contest: Contest) -> None:
    contest.enter(Stub("ghost", ()), {"ghost": "it is not installed"})
    contest.run(1, 0.1)
    found = only(contest)
    assert (found.status, found.reason, found.turns) == ("absent", "it is not installed", ())
    assert contest.found().ratios == ()


def test_a_peer_whose_program_is_missing_is_absent(contest: Contest) -> None:
    contest.enter(Stub("ghost", ("/no/such/program",)), {})
    found = only(contest)
    assert found.status == "absent"
    assert found.reason is not None
    assert "/no/such/program" in found.reason


def test_a_peer_that_ends_while_it_starts_is_absent_with_its_last_words(contest: Contest) -> None:
    contest.enter(Stub("short", (sys.executable, "-c", "import sys; sys.exit('no models here')")), {})
    found = only(contest)
    assert (found.status, found.reason) == ("absent", "ended with exit code 1: no models here")


def test_a_compiler_that_is_missing_makes_a_peer_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Absent, match=r"apt-get install .*libgrpc\+\+-dev"):
        GrpcCpp().prepare(tmp_path)


def test_a_package_that_is_not_to_be_had_makes_a_peer_absent_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    for _ in range(2):
        with pytest.raises(Absent, match="no-such-package==1"):
            virtual_environment(tmp_path / "environment", ("no-such-package==1",))


def test_a_server_that_answers_wrongly_gets_no_figures(contest: Contest, work: Prepared) -> None:
    contest.enter(Canned(work.reply[:-1] + bytes([work.reply[-1] ^ 1])), {})
    contest.run(1, 0.1)
    found = only(contest)
    assert (found.status, found.turns) == ("wrong", ())
    assert found.reason == "output y differs by more than 1e-05"


def test_a_server_that_answers_nonsense_gets_no_figures(contest: Contest) -> None:
    contest.enter(Canned(b"\xff\xff"), {})
    found = only(contest)
    assert found.status == "wrong"
    assert found.reason is not None
    assert found.reason.startswith("its answer cannot be read")


def test_a_server_that_answers_rightly_gets_figures_of_every_round(contest: Contest, work: Prepared) -> None:
    contest.enter(Canned(work.reply), {})
    contest.run(2, 0.1)
    found = only(contest)
    assert (found.status, [turn.round for turn in found.turns]) == ("measured", [1, 2])
    for turn in found.turns:
        assert turn.failures == ()
        assert turn.requests_per_second
        assert turn.cpu_us_per_request
        assert turn.alone_p50_ns
        assert turn.rss_bytes


def test_a_server_that_dies_between_its_turns_keeps_what_it_has_and_says_so(contest: Contest, work: Prepared) -> None:
    contest.enter(Canned(work.reply), {})
    contest.run(1, 0.1)
    (child,) = [one for one in psutil.Process().children() if "grpc_aio_server.py" in " ".join(one.cmdline())]
    child.kill()
    contest.run(1, 0.1)
    found = only(contest)
    assert (found.status, len(found.turns)) == ("failed", 1)
    assert found.reason is not None
    assert "exit code -9" in found.reason


def test_errors_under_load_are_shown(contest: Contest, work: Prepared) -> None:
    # A service of that name without the method that is asked for.
    script = (INSIDE / "grpc_aio_server.py").read_text().replace('"ModelInfer"', '"Other"')
    contest.enter(Stub("other", (sys.executable, "-c", script, "PORT", os.devnull), kind="floor"), {})
    contest.run(1, 0.1)
    (turn,) = only(contest).turns
    assert (turn.ok, turn.requests_per_second) == (0, None)
    assert {failure.code for failure in turn.failures} == {"UNIMPLEMENTED"}


def test_a_paused_server_costs_nothing_until_it_goes_on(tmp_path: Path) -> None:
    with Group(Start((sys.executable, "-c", "while True: pass")), tmp_path / "log") as group:
        meter = Meter(group)
        group.pause()
        os.waitid(os.P_PID, group.process.pid, os.WSTOPPED | os.WNOWAIT)
        paused = meter.read_ns()
        spent = time.process_time()
        while time.process_time() < spent + 0.05:
            pass
        assert meter.read_ns() == paused
        group.resume()
        while meter.read_ns() == paused:
            pass


def test_a_server_that_is_paused_still_ends_with_its_block(tmp_path: Path) -> None:
    with Group(Start((sys.executable, "-c", "while True: pass")), tmp_path / "log") as group:
        group.pause()
    assert group.process.returncode == -signal.SIGTERM


def test_no_child_outlives_its_server(tmp_path: Path) -> None:
    # The child inherits that SIGTERM is ignored; its parent then minds it again.
    program = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        "signal.signal(signal.SIGTERM, signal.SIG_DFL); print('started', flush=True); time.sleep(600)"
    )
    with Group(Start((sys.executable, "-c", program)), tmp_path / "log") as group:
        while group.said() != "started":
            assert group.ended() is None
        _, child = group.members()
    assert child.wait(10) is None
