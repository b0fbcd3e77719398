"""What one client may ask for, and how long its connection lives."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """For each connection. Where a time may be None, None is for ever."""

    max_message_bytes: int = 4 * 1024 * 1024
    max_metadata_bytes: int = 16 * 1024
    max_streams: int = 256
    window_bytes: int = 1024 * 1024
    max_unpaid_frames: int = 4_000
    """Frames in a second that ask for work and bring nothing."""
    handshake_timeout_s: float = 10.0
    """For the client's settings to come and ours to be taken, for TLS before them, and for the headers of each call."""
    keepalive_s: float | None = None
    """After so long a silence the client is asked whether it is there, and has keepalive_timeout_s to answer."""
    keepalive_timeout_s: float = 20.0
    max_idle_s: float | None = None
    """So long without a call, and the client is asked to leave."""
    max_age_s: float | None = None
    """So old, give or take a tenth, and the client is asked to leave; its calls have max_age_grace_s to end."""
    max_age_grace_s: float | None = None
