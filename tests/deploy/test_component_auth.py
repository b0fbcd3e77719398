"""A server with the flags of deploy/components/auth, and a Secret as Kubernetes mounts it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grpc
import onnx_models as models
from serve.calls import code_of, request, rows
from serve.conftest import UNLEARNT
from serve.process import Server
from serve.proxies.front import until

from .manifests import pods, rendered

POLICY = """\
rules:
- {who: [anyone], may: [health, metrics]}
- {who: ["key:frontend"], may: [infer], models: [scale]}
"""
PLACE = "/etc/inferd-auth"


def secret(mounted: Path, name: str) -> str:
    """Put a Secret with a new key there, as the kubelet does: names lead through one link, which is turned."""
    folder = mounted / name
    folder.mkdir(parents=True)
    (folder / "policy.yaml").write_text(POLICY)
    done = subprocess.run(
        [sys.executable, "-m", "inferd", "key", "frontend", "--file", folder / "keys"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    (mounted / "..next").symlink_to(name)
    (mounted / "..next").rename(mounted / "..data")
    for file in ("keys", "policy.yaml"):
        if not (mounted / file).is_symlink():
            (mounted / file).symlink_to(Path("..data", file))
    return done.stdout.strip().splitlines()[-1]


def test_keys_are_asked_for_and_renewed_and_probes_need_none(tmp_path: Path) -> None:
    [(_, pod), *_] = pods(rendered("auth"))
    [container] = pod["containers"]
    [mount] = [one for one in container["volumeMounts"] if one["name"] == "auth"]
    assert mount["mountPath"] == PLACE
    mounted = tmp_path / "mounted"
    key = secret(mounted, "..first")
    flags = tuple(one.replace(PLACE, str(mounted)) for one in container["args"] if one.startswith("--auth-"))
    models.write(tmp_path / "models", "scale", models.scale())
    server = Server(tmp_path / "models", tmp_path, "native", (*UNLEARNT, *flags), {})
    with server.while_ready(), server.stub() as stub:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert server.health(container[probe]["grpc"]["service"]) == "SERVING"
        assert "inferd_ready 1" in server.metrics_text()

        def code(shown: str | None) -> grpc.StatusCode:
            metadata = () if shown is None else (("authorization", f"Bearer {shown}"),)
            return code_of(lambda: stub.ModelInfer(request("scale", x=rows(1)), metadata=metadata, timeout=30))

        assert code(None) is grpc.StatusCode.UNAUTHENTICATED
        assert code(key) is grpc.StatusCode.OK
        renewed = secret(mounted, "..second")
        until(lambda: code(key) is grpc.StatusCode.UNAUTHENTICATED, "the end of the old key")
        assert code(renewed) is grpc.StatusCode.OK
