"""The ``inferd`` command: argv becomes settings, settings become a server.

Everything heavy is imported by the command that needs it: ``inferd health`` is a container's probe, and what
it imports is what every probe pays.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from inferd.errors import SettingsError, StartError

if TYPE_CHECKING:
    import grpc

    from inferd.config import Leaf, Loaded

_NOT_SERVING = 1
_USAGE = 2
_INTERRUPTED = 130
_FILE = click.Path(path_type=Path)


class _Inferd(click.Group):
    """Runs a command and turns however it ends into an exit code."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        kwargs["standalone_mode"] = False
        try:
            code = super().main(*args, **kwargs)
        except StartError as err:
            click.echo(f"inferd: {' '.join(str(err).split())}", err=True)
            code = _USAGE
        except click.ClickException as err:
            err.show()
            code = err.exit_code
        except (click.Abort, KeyboardInterrupt):
            code = _INTERRUPTED
        sys.exit(code)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), "bench", "plan", "serve"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        # Serve's flags are the settings, and reading those costs more than a whole health check.
        lazy = {"bench": _bench_command, "plan": _plan_command, "serve": _serve_command}
        return lazy[cmd_name]() if cmd_name in lazy else super().get_command(ctx, cmd_name)


class _Serve(click.Command):
    """A command that explains flags it does not have in the words of the settings."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        from inferd.config import unknown_flag

        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as err:
            wrong = err.option_name
        raise unknown_flag(wrong)


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from inferd.version import version

        click.echo(f"inferd {version()}")
        ctx.exit()


@click.group(cls=_Inferd, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Print the version.",
)
def main() -> None:
    """Serve ONNX models over gRPC."""


# --- serve -----------------------------------------------------------------------------------------


def _serve_command() -> click.Command:
    from inferd.config import leaves

    declared = list(leaves())
    paths = {_parameter(leaf): leaf.path for leaf in declared}

    def serve(path: str | None, config: str | None, print_config: bool, **given: str | None) -> int:
        return _serve(path, {"config": config, **{paths[name]: given[name] for name in given}}, print_config)

    return _Serve(
        "serve",
        callback=serve,
        short_help="Load the models and serve them until SIGTERM.",
        help="Load the models at PATH, a repository folder or an .onnx file, and serve until SIGTERM.\n\n"
        "Every flag is a setting: it wins over its environment variable, which wins over the YAML file.",
        params=[
            click.Argument(["path"], required=False),
            click.Option(["--config"], metavar="FILE", help="YAML file with settings."),
            click.Option(
                ["--print-config"],
                is_flag=True,
                help="Print every setting and where it comes from; do not start.",
            ),
            *(_option(leaf) for leaf in declared),
        ],
    )


def _parameter(leaf: Leaf) -> str:
    return "setting_" + leaf.path.replace(".", "__")


def _option(leaf: Leaf) -> click.Option:
    from inferd.config import FLAGS_ELSEWHERE, shown

    # Values stay text here, so that a wrong one is refused in the same words wherever it comes from.
    return click.Option(
        [leaf.flag, *(flag for flag, path in FLAGS_ELSEWHERE.items() if path == leaf.path), _parameter(leaf)],
        metavar="VALUE",
        multiple=leaf.path == "models.load",
        callback=_joined,
        help=f"{leaf.description} [{leaf.expected}; {shown(leaf.default)}]",
    )


def _joined(context: click.Context, option: click.Parameter, value: str | tuple[str, ...] | None) -> str | None:
    """A flag that was given more than once is a list, and one that was not given at all is None."""
    return (",".join(value) or None) if isinstance(value, tuple) else value


def _serve(path: str | None, flags: dict[str, str | None], print_config: bool) -> int:
    from inferd.config import load

    loaded = load(flags, models_path=path)
    if print_config:
        _print_settings(loaded)
        return 0
    if loaded.settings.models.path is None:
        raise SettingsError("models.path: not set; name a model repository or an .onnx file: inferd serve PATH")

    from inferd.app import serve

    return serve(loaded.settings)


def _print_settings(loaded: Loaded) -> None:
    from inferd.config import shown

    rows = [(path, shown(loaded.value(path)), origin) for path, origin in loaded.origins.items()]
    if not sys.stdout.isatty():
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        for path, value, origin in rows:
            click.echo(f"{path:<{widths[0]}}\t{value:<{widths[1]}}\t{origin}")
        return

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("setting", "value", "origin")
    for path, value, origin in rows:
        # Text, not str: a path with brackets in it is no markup.
        table.add_row(path, Text(value), Text(origin), style="dim" if origin == "default" else "")
    Console().print(table)


# --- check -----------------------------------------------------------------------------------------


@main.command()
@click.argument("path", type=click.Path(path_type=Path), required=False)
@click.option("--json", "out_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--security", is_flag=True, help="Print what the settings open, and to whom, instead.")
@click.option("--config", metavar="FILE", help="YAML file with settings.")
def check(path: Path | None, out_json: bool, security: bool, config: str | None) -> int:
    """Check the models at PATH without serving them, or what the settings expose.

    Settings come from the file and from the environment, as for `inferd serve`.
    """
    if security:
        from inferd.config import load as load_settings
        from inferd.exposure import report

        given = None if path is None else str(path)
        return report(load_settings({"config": config}, models_path=given).settings, sys.stdout)
    if path is None:
        raise click.UsageError("name a model repository or an .onnx file: inferd check PATH")
    from inferd.check import check as check_models
    from inferd.config import load

    return check_models(path, load({"config": config}, models_path=str(path)).settings, out_json)


# --- bench -----------------------------------------------------------------------------------------


def _bench_command() -> click.Command:
    from inferd.bench.command import command

    return command()


# --- plan ------------------------------------------------------------------------------------------


def _plan_command() -> click.Command:
    from inferd.plan.command import command

    return command()


# --- key ---------------------------------------------------------------------------------------------


@main.command()
@click.argument("name")
@click.option("--file", "path", type=_FILE, metavar="FILE", help="Add the entry to this file; else it is printed.")
def key(name: str, path: Path | None) -> int:
    """Make an API key for NAME, who is key:NAME in the policy.

    The key is printed once and kept nowhere; the file of auth.keys gets its salted hash.
    """
    from inferd.auth.keys import add, make

    secret, entry = make(name)
    if path is None:
        click.echo(f"add to the file of auth.keys: {entry.line()}", err=True)
    else:
        add(path, entry)
        click.echo(f"{path} has a new key for {name}; this is it, and it is told only now:", err=True)
    click.echo(secret)
    return 0


# --- health ----------------------------------------------------------------------------------------


@main.command()
@click.option("--address", default="127.0.0.1:8001", show_default=True, metavar="HOST:PORT", help="Or unix:/path.")
@click.option("--service", default="readiness", show_default=True, metavar="NAME", help="Name to ask about.")
@click.option("--timeout-ms", type=click.IntRange(min=1), default=1000, show_default=True, metavar="MS")
@click.option("--tls-ca", type=_FILE, metavar="FILE", help="Speak TLS, and trust servers with these certificates.")
@click.option("--tls-certificate", type=_FILE, metavar="FILE", help="Ours, if the server asks for one.")
@click.option("--tls-key", type=_FILE, metavar="FILE", help="The key of that.")
@click.option("--tls-name", metavar="NAME", help="The server's name in its certificate, if not HOST.")
def health(
    address: str,
    service: str,
    timeout_ms: int,
    tls_ca: Path | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    tls_name: str | None,
) -> int:
    """Ask a running server for its health.

    Exit code 0: serving. 1: not serving, or the name is unknown. 2: no answer.
    """
    import grpc
    from grpc_health.v1 import health_pb2

    with _probe_channel(address, tls_ca, tls_certificate, tls_key, tls_name) as channel:
        # The generated HealthStub does just this, for more import time and with no types.
        ask = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            reply = ask(health_pb2.HealthCheckRequest(service=service), timeout=timeout_ms / 1000)
        except grpc.RpcError as err:
            status = _status_without_reply(err, address, timeout_ms)
        else:
            status = health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
    click.echo(f"{service or 'server'} {status}")
    return 0 if status == "SERVING" else _NOT_SERVING


def _probe_channel(
    address: str, ca: Path | None, certificate: Path | None, key: Path | None, name: str | None
) -> grpc.Channel:
    import grpc

    # A proxy named in the environment is for the outside world; a probe must see this server itself.
    options: list[tuple[str, str | int]] = [("grpc.enable_http_proxy", 0)]
    if ca is None:
        if certificate is not None or key is not None or name is not None:
            raise click.UsageError("--tls-certificate, --tls-key and --tls-name need --tls-ca")
        return grpc.insecure_channel(address, options=options)
    if (certificate is None) != (key is None):
        raise click.UsageError("--tls-certificate and --tls-key go together")
    if name is not None:
        options.append(("grpc.ssl_target_name_override", name))
    parts = [None if path is None else _content(path) for path in (ca, key, certificate)]
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(*parts), options=options)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as failure:
        raise StartError(f"{path} cannot be read: {failure.strerror}") from failure


def _status_without_reply(err: grpc.RpcError, address: str, timeout_ms: int) -> str:
    """Name what a server that answered with an error said; raise StartError if none answered."""
    import grpc

    code = err.code()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        raise StartError(f"{address} did not answer within {timeout_ms} ms")
    if code is grpc.StatusCode.UNAVAILABLE:
        raise StartError(f"{address} cannot be reached: {err.details()}")
    return "SERVICE_UNKNOWN" if code is grpc.StatusCode.NOT_FOUND else str(code.name)
