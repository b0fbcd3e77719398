"""What a stack of Compose must not have, in the long form in which Compose shows it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from . import images
from .dockerfiles import RUNS_CODE

Stack = dict[str, Any]

PUBLISHED = {"nginx", "grafana"}
RUNS_ONCE = {"elasticsearch-users"}
# Prometheus 3 does not start with the first; the second lets whoever reaches it delete all that is stored.
NOT_FOR_PROMETHEUS = {"--alertmanager.timeout", "--web.enable-admin-api"}


def faults(stack: Stack) -> Iterator[str]:
    """Complaints, each after the name of its service."""
    for name, service in stack["services"].items():
        yield from (f"{name}: {fault}" for fault in _faults(name, service))
    used = {one["source"] for service in stack["services"].values() for one in service.get("secrets", ())}
    yield from (f"secret {name} is used by nobody" for name in sorted(stack.get("secrets", {}).keys() - used))


def _faults(name: str, service: Stack) -> Iterator[str]:
    yield from images.faults(service.get("image", ""))
    for port in service.get("ports", ()):
        if name not in PUBLISHED or port.get("host_ip") != "127.0.0.1":
            yield f"port {port['target']} is published"
        if service.get("deploy", {}).get("replicas", 1) > 1:
            yield f"of its replicas one alone can have port {port['published']}"
    health = service.get("healthcheck")
    if not health and name not in RUNS_ONCE:
        yield "no health check"
    if service.get("privileged") or service.get("network_mode") == "host":
        yield "as good as outside of a container"
    if service.get("cap_drop") != ["ALL"] or "no-new-privileges:true" not in service.get("security_opt", ()):
        yield "has more rights than it needs"
    environment = service.get("environment") or {}
    for variable, value in environment.items():
        if re.search("PASSWORD|TOKEN|SECRET|KEY", variable) and not str(value).startswith("/run/secrets/"):
            yield f"{variable} is no file"
        if RUNS_CODE.search(str(value)):
            yield f"{variable} is a program that runs when it is read"
    if "GF_INSTALL_PLUGINS" in environment:
        yield "fetches plugins whenever it starts"
    asks_who = name in RUNS_ONCE or environment.get("xpack.security.enabled") == "true"
    if "/elasticsearch:" in f"/{service.get('image', '')}" and not asks_who:
        yield "answers whoever asks"
    for flag in service.get("command") or ():
        if flag.partition("=")[0] in NOT_FOR_PROMETHEUS:
            yield f"must not have {flag}"
    for mount in service.get("volumes", ()):
        if mount["type"] == "bind" and not mount.get("read_only"):
            yield f"may write to {mount['target']}"
        if mount["source"].endswith("docker.sock"):
            yield "rules the engine"
    if not service.get("deploy", {}).get("resources", {}).get("limits", {}).get("memory"):
        yield "may take all memory"
