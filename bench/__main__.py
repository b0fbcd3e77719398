"""`python -m bench`: each command is imported when it is asked for, so that none pays for another."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType

import click

from inferd.errors import StartError

_USAGE = 2
_INTERRUPTED = 130

COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "compare": ("bench.compare", "compare"),
        "show": ("bench.show", "show"),
        "goals": ("bench.goals", "goals"),
        "micro": ("bench.micro.command", "micro"),
        "check": ("bench.micro.command", "check"),
        "memory": ("bench.memory", "memory"),
        "abuse": ("bench.abuse.command", "abuse"),
        "plan": ("bench.plan", "plan"),
        "swap": ("bench.swap", "swap"),
        "overload": ("bench.overload", "overload"),
        "gpu": ("bench.gpu.command", "gpu"),
        "neighbour": ("bench.neighbour", "neighbour"),
        "metrics": ("bench.telemetry", "metrics"),
        "auth": ("bench.auth", "auth"),
    }
)


class _Bench(click.Group):
    """A group whose commands live in modules of their own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), name)
        return command


@click.group(cls=_Bench, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure inferd on this machine."""


def run() -> int:
    """Run a command and turn however it ends into an exit code."""
    try:
        main(prog_name="python -m bench", standalone_mode=False)
    except StartError as err:
        click.echo(f"bench: {' '.join(str(err).split())}", err=True)
        return _USAGE
    except click.ClickException as err:
        err.show()
        return err.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(run())
