"""Writes docs/cli.md from the --help of every command: `make docs`."""

from pathlib import Path

import click

from scarprune.cli.main import COMMANDS, app

CLI = Path(__file__).with_name("cli.md")
_HEAD = """# Command line

Generated from `--help` by `make docs`. Answers go to stdout, progress and remarks to stderr. Exit codes:
0 done, 1 an error (one sentence on stderr), 2 an option or argument that the parser refuses, 130 Ctrl-C.
"""


def render() -> str:
    """The whole document."""
    parts = [_HEAD, _section("scarprune", app, None)]
    with click.Context(app, info_name="scarprune") as parent:
        for name in COMMANDS:
            command = app.get_command(parent, name)
            assert command is not None
            parts.append(_section(name, command, parent))
    return "\n".join(parts)


def _section(name: str, command: click.Command, parent: click.Context | None) -> str:
    with click.Context(command, info_name=name, parent=parent, terminal_width=100) as context:
        text = command.get_help(context)
    title = "scarprune" if parent is None else f"scarprune {name}"
    return f"## {title}\n\n```text\n{text}\n```\n"


if __name__ == "__main__":
    CLI.write_text(render(), encoding="utf-8")
