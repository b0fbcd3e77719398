"""The configuration page, written from the settings themselves: ``python -m inferd.config.docs > PAGE``.

What the page quotes as an error is what ``load`` really says; the page cannot promise another text.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

from inferd.config import names
from inferd.config.kinds import KIB, MIB
from inferd.config.leaves import Leaf, leaves, sections, shown
from inferd.config.sources import CONFIG_FLAG, CONFIG_VARIABLE, load
from inferd.errors import SettingsError

EXAMPLE = """\
grpc:
  port: 8001
log:
  format: json
models:
  path: /models
  strict: false
batching:
  max_batch_size: 32
  max_queue_delay_us: 200
inference:
  timeout_ms: 1000
drain:
  lame_duck_ms: 5000
  grace_ms: 20000
"""

_WRONG_VARIABLES = (
    {"INFERD_GRPC_PROT": "8001"},
    {"INFERD_GRPC_PORT": "eight"},
    {"INFERD_CACHE_ENABLED": "true"},
    {"INFERD_HTTP_PORT": "9090"},
)


def page() -> str:
    """Write the whole page as Markdown."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield "# Configuration"
    yield ""
    yield "<!-- Written by `python -m inferd.config.docs`; change the settings, not this page. -->"
    yield ""
    yield from _names_and_precedence()
    yield from _settings()
    yield from _example()
    yield from _refused()
    yield from _links()
    yield from _elsewhere()


def _names_and_precedence() -> Iterator[str]:
    yield from (
        "Each setting has one name, and each place spells it by one rule:",
        "",
        "| Setting | YAML file | Environment | Flag of `inferd serve` |",
        "|---|---|---|---|",
        "| `grpc.port` | `grpc: {port: 8001}` | `INFERD_GRPC_PORT=8001` | `--grpc-port 8001` |",
        "",
        "A later place wins over an earlier one, setting by setting:",
        "",
        "1. the default;",
        f"2. the YAML file that `{CONFIG_FLAG} FILE` or else `{CONFIG_VARIABLE}` names;",
        "3. the environment;",
        "4. the flags of `inferd serve`;",
        "5. for `models.path` alone, the argument of `inferd serve PATH`.",
        "",
        "`inferd serve --print-config` prints every setting, its value and the place that set it, and exits.",
        "",
        "- A variable that is set to nothing (`INFERD_GRPC_PORT=`) counts as not set.",
        "- Variables and flags are text: `true`, `yes`, `on`, `1` and their opposites all do for a switch.",
        '  In the YAML file a value must have its own type: `port: 8001`, not `port: "8001"`.',
        "- Each flag takes a value, also the switches: `--grpc-reflection false`.",
        "",
    )


def _settings() -> Iterator[str]:
    meanings = sections()
    yield "## Settings"
    for section, members in groupby(leaves(), key=lambda leaf: leaf.section):
        yield from ("", f"### {section or 'Without a section'}", "")
        if section:
            yield from (meanings[section], "")
        yield from table(
            ("YAML key", "Environment", "Flag", "Value", "Default", "Meaning"),
            (_row(leaf) for leaf in members),
        )
    yield ""


def _row(leaf: Leaf) -> tuple[str, ...]:
    return (
        f"`{leaf.path}`",
        f"`{leaf.variable}`",
        f"`{leaf.flag}`",
        leaf.expected,
        _default(leaf),
        leaf.description,
    )


def _default(leaf: Leaf) -> str:
    if leaf.default is None:
        return shown(None)
    text = f"`{shown(leaf.default)}`"
    if leaf.path.endswith("_bytes") and isinstance(leaf.default, int):
        unit, word = (MIB, "MiB") if leaf.default % MIB == 0 else (KIB, "KiB")
        text += f" ({leaf.default // unit} {word})"
    return text


def _example() -> Iterator[str]:
    yield from ("## Example", "", "```yaml", *EXAMPLE.splitlines(), "```", "")


def _refused() -> Iterator[str]:
    yield from (
        "## What is refused",
        "",
        "A setting that is silently ignored is worse than none, so inferd exits with code 2 and one line if",
        "",
        "- a YAML key, an `INFERD_` variable or a flag is not a setting;",
        "- a value has the wrong type or is out of range;",
        "- a YAML key stands twice in its section;",
        "- two settings contradict each other: two servers on one port, a queue that holds less than one",
        "  batch or one message, a wait for other requests that is not shorter than the deadline;",
        "- a setting is for something that is not built yet.",
        "",
        "For example:",
        "",
        "```text",
    )
    for environ in _WRONG_VARIABLES:
        yield f"$ {' '.join(f'{name}={value}' for name, value in environ.items())} inferd serve /models"
        yield f"inferd: {_error(environ)}"
    yield from (
        "```",
        "",
        "Not built yet, and refused wherever it is set, by these names and every name that starts so:",
        "",
    )
    yield from table(
        ("Setting", "What it would configure"),
        ((f"`{name}`", thing) for name, thing in names.NOT_BUILT.items()),
    )
    yield ""


def _error(environ: Mapping[str, str]) -> str:
    try:
        load({}, environ)
    except SettingsError as err:
        return str(err)
    raise AssertionError(f"the page calls this an error, and it is none: {json.dumps(dict(environ))}")


def _links() -> Iterator[str]:
    yield from (
        "## Variables that Kubernetes adds",
        "",
        "For a Service named `inferd` Kubernetes puts `INFERD_SERVICE_HOST`, `INFERD_PORT=tcp://...` and",
        "more into each pod of the namespace, and for a Service `inferd-grpc` even `INFERD_GRPC_PORT=tcp://...`.",
        "inferd tells such links by their names and values and ignores them. `enableServiceLinks: false` in",
        "the pod keeps them away.",
        "",
    )


def _elsewhere() -> Iterator[str]:
    yield from (
        "## Coming from other manifests",
        "",
        "Deployments of model servers often use these names. inferd does not read them; this is what to",
        "write instead. A name in capitals is a variable, one with a dot a key of a YAML file.",
        "",
    )
    known = {leaf.path for leaf in leaves()}
    yield from table(
        ("There", "inferd", "Remark"),
        (
            (
                f"`{entry.name}`",
                f"`{entry.setting}`" if entry.setting in known else f"`{entry.setting}`: not built yet, refused",
                entry.remark,
            )
            for entry in names.ELSEWHERE
        ),
    )
    yield from (
        "",
        "These flags of tritonserver are taken as they are; `--load-model` may be given more than once.",
        "",
    )
    yield from table(("There", "inferd"), ((f"`{flag}`", f"`{path}`") for flag, path in names.FLAGS_ELSEWHERE.items()))
    yield ""


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """The lines of a Markdown table."""
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


if __name__ == "__main__":
    sys.stdout.write(page())
