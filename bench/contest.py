"""One work's contest: everything is started, takes its turns, and is stopped."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from bench.answers import wait_until_ready, wrong
from bench.limits import Bare
from bench.peers import Absent, Peer
from bench.processes import Group, free_port
from bench.ratios import ratios
from bench.result import Entrant, Kind, Status, Turn, WorkFound
from bench.turns import LAST_WORDS_S, Contestant, Server
from bench.works import Prepared


@dataclass(slots=True)
class Standing:
    """How it stands with an entrant. Without a contestant it takes no more turns."""

    name: str
    kind: Kind
    contestant: Contestant | None = None
    status: Status = "measured"
    reason: str | None = None
    note: str | None = None
    turns: list[Turn] = field(default_factory=list)

    def drop(self, status: Status, reason: str) -> None:
        """From now on it takes no part, for this reason."""
        self.contestant, self.status, self.reason = None, status, reason
        if status == "wrong":
            # How fast a wrong answer comes is no figure.
            self.turns.clear()

    def entrant(self) -> Entrant:
        """As it is reported."""
        return Entrant(
            name=self.name,
            kind=self.kind,
            status=self.status,
            reason=self.reason,
            note=self.note,
            turns=tuple(self.turns),
        )


class Contest:
    """Entrants in the order of their turns. Use as a context manager: what was started ends with the block."""

    def __init__(self, work: Prepared, tell: Callable[[str], None]) -> None:
        """`tell` is told what is going on, a line at a time."""
        self._work = work
        self._tell: Callable[[str], None] = lambda text: tell(f"{work.name}: {text}")
        self._stack = ExitStack()
        self._standings: list[Standing] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def enter_bare(self) -> None:
        """Start ONNX Runtime by itself and find what is best for it."""
        self._tell("onnxruntime: finding its best batch size and threads")
        standing = self._stand(Bare.name, Bare.kind)
        folder = self._folder()
        try:
            group = self._stack.enter_context(Group(Bare.start(self._work, folder), folder / "log", talks=True))
            bare = Bare(group)
        except OSError as err:
            standing.drop("failed", str(err))
        else:
            standing.contestant, standing.note = bare, bare.note

    def enter(self, peer: Peer, absences: Mapping[str, str]) -> None:
        """Start a peer and check its answer; one that is known to be absent is only entered in the list."""
        standing = self._stand(peer.name, peer.kind)
        if peer.name in absences:
            standing.drop("absent", absences[peer.name])
            return
        self._tell(f"{peer.name}: starting")
        folder = self._folder()
        try:
            port = free_port()
            group = self._stack.enter_context(Group(peer.start(self._work, folder, port), folder / "log"))
        except (Absent, OSError) as err:
            standing.drop("absent", str(err))
            return
        server = Server(peer, self._work, group, f"127.0.0.1:{port}")
        try:
            wait_until_ready(server.address, group, self._work if peer.grpc else None)
            standing.contestant = server
            self._verify(standing, server)
        except Absent as err:
            standing.drop("absent", str(err))
        finally:
            group.pause()

    def run(self, rounds: int, seconds: float) -> None:
        """Everybody's turns, round by round, and the check that answers are still right after them."""
        for number in range(1, rounds + 1):
            for standing in self._standings:
                if standing.contestant is None:
                    continue
                self._tell(f"round {number} of {rounds}: {standing.name}")
                try:
                    standing.turns.append(standing.contestant.turn(number, seconds * self._work.work.longer))
                except OSError as err:
                    standing.drop("failed", f"in round {number}: {err}")
        for standing in self._standings:
            if isinstance(server := standing.contestant, Server) and server.kind != "floor":
                self._tell(f"{standing.name}: checking its answer again")
                server.group.resume()
                self._verify(standing, server)
                server.group.pause()

    def found(self) -> WorkFound:
        """What it came to."""
        work, entrants = self._work, tuple(standing.entrant() for standing in self._standings)
        return WorkFound(
            name=work.name,
            title=work.work.title,
            model=work.work.model.origin,
            model_sha256=work.sha256,
            request_bytes=len(work.request),
            answer_bytes=len(work.reply),
            loaded=work.work.loaded,
            threads=work.threads,
            tolerance=work.work.tolerance,
            entrants=entrants,
            ratios=tuple(ratios(entrants)),
        )

    def _stand(self, name: str, kind: Kind) -> Standing:
        self._standings.append(Standing(name, kind))
        return self._standings[-1]

    def _folder(self) -> Path:
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="inferd-bench-")))

    def _verify(self, standing: Standing, server: Server) -> None:
        # A floor's answer is a file; there is nothing to be wrong.
        if server.kind != "floor" and (why := wrong(server.address, self._work)) is not None:
            ended = server.group.ended(LAST_WORDS_S)
            standing.drop("wrong" if ended is None else "failed", ended or why)
