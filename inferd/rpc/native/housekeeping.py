"""Housekeeping: which connections have lived long enough, say nothing any more, or never said anything.

What times mean follows gRPC's own servers: keepalive (gRFC A8), and idle and maximum age (gRFC A9).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from inferd._native.h2 import Connection
from inferd._native.hub import Hub
from inferd.rpc.native.limits import Limits

SECOND_NS: Final = 1_000_000_000
CLOSE_TIMEOUT_NS: Final = 2 * SECOND_NS
"""How long a client may take to read what is left for it once the server closes the connection."""
GOAWAY_TIMEOUT_NS: Final = SECOND_NS
"""How long a client may take to show that it has heard of leaving before calls that it begins are ignored."""
AGE_JITTER: Final = 0.1
"""Connections that were made together do not all leave at once (gRFC A9)."""
TURNS: Final = 5
"""In the shortest of the times that are kept."""


@dataclass(slots=True)
class Life:
    """What is remembered of one connection between two turns."""

    leaves_ns: int | None  # when it is too old
    active_ns: int  # when it last had a call
    last_stream_id: int = 0
    pinged_ns: int = 0  # when it was asked whether it is there, 0 = it has answered
    left_ns: int = 0  # when it was asked to leave


class Housekeeping:
    """All connections of one hub. turn() wants to be called every `every_s` seconds; it reads no clock."""

    def __init__(self, hub: Hub, limits: Limits) -> None:
        """Nothing happens before the first turn."""
        self._hub, self._limits = hub, limits
        self._handshake_ns = _ns(limits.handshake_timeout_s)
        self._keepalive_ns, self._keepalive_timeout_ns = _ns(limits.keepalive_s), _ns(limits.keepalive_timeout_s)
        self._idle_ns, self._grace_ns = _ns(limits.max_idle_s), _ns(limits.max_age_grace_s)
        self._forgiven_ns = 0
        kept = [limits.keepalive_s, limits.keepalive_timeout_s, limits.max_idle_s, limits.max_age_s]
        shortest = min(seconds for seconds in [*kept, limits.max_age_grace_s, TURNS] if seconds)
        self.every_s: Final = max(shortest / TURNS, 0.01)

    def turn(self, now_ns: int) -> None:
        """Look after every connection once."""
        forgive = now_ns - self._forgiven_ns >= SECOND_NS
        if forgive:
            self._forgiven_ns = now_ns
        for connection in tuple(self._hub.connections):
            if connection.closing_ns:
                if now_ns - connection.closing_ns > CLOSE_TIMEOUT_NS:
                    connection.abort()
                continue
            if connection.life is None:
                connection.life = self._born(connection, now_ns)
            life: Life = connection.life
            if self._is_stuck(connection, now_ns) or self._is_dead(connection, life, now_ns):
                connection.abort()
                continue
            if forgive and not connection.is_paused:
                connection.unpaid_frames = 0
            if connection.is_leaving:
                self._see_off(connection, life, now_ns)
            elif self._is_idle(connection, life, now_ns) or (life.leaves_ns is not None and now_ns > life.leaves_ns):
                life.left_ns = now_ns
                connection.go_away()

    def _born(self, connection: Connection, now_ns: int) -> Life:
        age_s = self._limits.max_age_s
        if age_s is None:
            return Life(leaves_ns=None, active_ns=now_ns)
        age_s *= random.uniform(1 - AGE_JITTER, 1 + AGE_JITTER)
        return Life(leaves_ns=connection.opened_ns + int(age_s * SECOND_NS), active_ns=now_ns)

    def _is_stuck(self, connection: Connection, now_ns: int) -> bool:
        """Whether a client takes too long over its settings or over a call's headers."""
        since_ns = connection.headers_since_ns if connection.is_greeted else connection.opened_ns
        return self._handshake_ns is not None and since_ns > 0 and now_ns - since_ns > self._handshake_ns

    def _is_dead(self, connection: Connection, life: Life, now_ns: int) -> bool:
        """Whether a client did not answer; asks it, if it has been silent for too long."""
        if self._keepalive_ns is None or self._keepalive_timeout_ns is None:
            return False
        if life.pinged_ns:
            if connection.received_ns < life.pinged_ns:
                return now_ns - life.pinged_ns > self._keepalive_timeout_ns
            life.pinged_ns = 0
        if now_ns - connection.received_ns > self._keepalive_ns:
            life.pinged_ns = now_ns
            connection.ping()
        return False

    def _is_idle(self, connection: Connection, life: Life, now_ns: int) -> bool:
        if connection.streams or connection.last_stream_id != life.last_stream_id:
            life.active_ns, life.last_stream_id = now_ns, connection.last_stream_id
        return self._idle_ns is not None and now_ns - life.active_ns > self._idle_ns

    def _see_off(self, connection: Connection, life: Life, now_ns: int) -> None:
        """Of a client that was asked to leave: no new calls after a while, and no old ones after the grace."""
        life.left_ns = life.left_ns or now_ns  # asked by someone else, who has a grace of his own
        if now_ns - life.left_ns > GOAWAY_TIMEOUT_NS:
            connection.take_no_more()
        is_old = life.leaves_ns is not None and now_ns > life.leaves_ns
        if is_old and self._grace_ns is not None and now_ns - life.left_ns > self._grace_ns:
            connection.cut(b"the connection has reached its greatest age, and this call its grace")


def _ns(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * SECOND_NS)
