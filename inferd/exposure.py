"""``inferd check --security``: what settings open, on which port, to whom; nothing is started for it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import TextIO

from inferd.auth.judge import Judge
from inferd.config import Settings
from inferd.tls import Certificates


def report(settings: Settings, out: TextIO) -> int:
    """Write it; 0. Raises StartError as the start would, for certificates or rules that are wrong."""
    if settings.tls.certificate is not None:
        Certificates(settings.tls)
    judge = Judge(settings.auth) if settings.auth.is_on else None
    for title, lines in (
        ("ports", _ports(settings)),
        ("who may what", _rules(judge)),
        ("what clients can change", _changeable(settings)),
        ("bounds", _bounds(settings)),
        ("to think about", _remarks(settings, judge)),
    ):
        told = list(lines)
        if told:
            out.write(f"{title}\n")
            out.writelines(f"  {line}\n" for line in told)
    return 0


def _ports(settings: Settings) -> Iterator[str]:
    grpc, http, metrics, tls = settings.grpc, settings.http, settings.metrics, settings.tls
    secured = _tls(settings)
    asked = "by the rules below" if settings.auth.is_on else "whoever connects"
    yield _port("gRPC", settings.host, grpc.port, secured, asked)
    if grpc.unix_socket is not None:
        yield f"{'gRPC':<8} {grpc.unix_socket}: no TLS, whom its file's rights let in; then {asked}"
    if grpc.health_port:
        yield _port("health", settings.host, grpc.health_port, "no TLS", "whoever connects, grpc.health.v1 only")
    if http.port:
        yield _port("HTTP", settings.host, http.port, secured if tls.http else "no TLS", asked)
        parts = ["/health", "/ready"]
        parts += ["/v2 and below"] if http.inference else []
        parts += ["the status page"] if http.status_page else []
        yield f"{'':<8} answers {', '.join(parts)}"
    if metrics.enabled and metrics.port:
        yield _port("metrics", settings.host, metrics.port, secured if tls.metrics else "no TLS", asked)


def _port(name: str, host: str, port: int, secured: str, asked: str) -> str:
    shown = str(port) if port else "any free port"
    return f"{name:<8} {host} {shown} ({_reach(host)}): {secured}; {asked}"


def _reach(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "this machine" if host == "localhost" else "whoever reaches that address"
    if address.is_loopback:
        return "this machine"
    return "every interface" if address.is_unspecified else "whoever reaches that address"


def _tls(settings: Settings) -> str:
    tls = settings.tls
    if tls.certificate is None:
        return "no TLS"
    asked = {"none": "", "optional": ", client certificates checked if shown", "required": ", client certificates"}
    return f"TLS {tls.min_version} and newer{asked[tls.client_auth]}"


def _rules(judge: Judge | None) -> Iterator[str]:
    if judge is None:
        yield "anyone who can connect: every method, every model; none of auth.keys, auth.jwks, auth.policy is set"
        return
    for rule in judge.rules.policy.rules:
        models = "" if "*" in rule.models else f", for models {', '.join(rule.models)}"
        yield f"{', '.join(rule.who)}: {', '.join(rule.may)}{models}"
    yield "anything else is refused"
    for who, weight in judge.rules.policy.weights:
        yield f"{who}: weighs {weight} where callers take turns, others 1"
    if judge.rules.keys is not None:
        yield f"there are API keys for: {', '.join(judge.rules.keys.names) or 'nobody'}"


def _changeable(settings: Settings) -> Iterator[str]:
    explicit = settings.models.control_mode == "explicit"
    for name, is_on, setting in (
        ("loading and unloading models", explicit, f"models.control_mode {settings.models.control_mode}"),
        ("shared memory of this machine", settings.shared_memory.enabled, "shared_memory.enabled"),
        ("what is logged", settings.control.log_settings, "control.log_settings"),
        ("what is traced", settings.control.trace_settings, "control.trace_settings"),
        ("reflection, which only reads", settings.grpc.reflection, "grpc.reflection"),
    ):
        yield f"{name}: {'on' if is_on else 'off'} ({setting})"


def _bounds(settings: Settings) -> Iterator[str]:
    grpc = settings.grpc
    yield f"a message {grpc.max_message_bytes} bytes, a call's headers {grpc.max_metadata_bytes}"
    yield f"a connection {grpc.max_concurrent_streams} calls, a handshake {grpc.handshake_timeout_ms} ms"
    yield f"a body over HTTP {settings.http.max_body_bytes} bytes"


def _remarks(settings: Settings, judge: Judge | None) -> Iterator[str]:
    """What somebody may not have meant."""
    outside = _reach(settings.host) != "this machine"
    if outside and judge is None and settings.tls.client_auth != "required":
        yield "whoever reaches the gRPC port may run every model: set auth.keys, auth.jwks or tls.client_auth required"
    is_plain = settings.tls.certificate is None
    has_secrets = judge is not None and (judge.rules.keys is not None or judge.rules.tokens is not None)
    if outside and is_plain and has_secrets:
        yield "keys and tokens cross the network unencrypted: set tls.certificate and tls.key, or have a proxy do it"
    side_door = settings.http.port and settings.http.inference and not settings.tls.http
    if outside and judge is None and settings.tls.client_auth == "required" and side_door:
        yield "the HTTP port runs models too, and asks for no certificate: set tls.http true or http.inference false"
    if judge is None:
        for is_on, what in (
            (settings.models.control_mode == "explicit", "load and unload models"),
            (settings.shared_memory.enabled, "read and write shared memory that the server can open"),
            (settings.control.log_settings, "change what is logged"),
            (settings.control.trace_settings, "change what is traced"),
        ):
            if is_on:
                yield f"whoever connects may {what}"
    else:
        for rule in judge.rules.policy.rules:
            if "anyone" in rule.who and any(may not in ("health", "metrics") for may in rule.may):
                yield f"without credentials anyone may: {', '.join(rule.may)}"
    if settings.grpc.health_port and settings.tls.certificate is None and judge is None:
        yield "grpc.health_port adds nothing where the gRPC port itself is open"
