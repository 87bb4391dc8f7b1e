"""Where a command's result goes: words and tables for people on stdout, JSON for programs."""

import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from scarprune.artifacts import dump_json, refuse_existing, write_json

_WIDEST = 100  # of lines that wrap; also the width of pipes, which tell none


class Answer:
    """The result of one command, shown and written as its ``--json`` says.

    Raises:
        ArtifactError: the JSON file is already there; said before the work, not after it.
    """

    def __init__(self, kind: str, json_file: str | None, overwrite: bool = False) -> None:
        self.kind = kind
        self.json_file = json_file
        self.overwrite = overwrite
        if json_file not in (None, "-"):
            refuse_existing(Path(str(json_file)), overwrite)

    @property
    def for_people(self) -> bool:
        """Whether stdout is for words: ``--json -`` leaves JSON alone there."""
        return self.json_file != "-"

    def give(self, payload: Mapping[str, Any], show: Callable[[Console], None]) -> None:
        """Show the result and write its JSON."""
        if self.json_file == "-":
            print(dump_json(self.kind, payload))
            return
        if self.json_file is not None:
            write_json(Path(self.json_file), self.kind, payload, overwrite=self.overwrite)
        show(console())


def console() -> Console:
    """A console on stdout as it is now, where paragraphs wrap; plain text where that is no terminal."""
    plain = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    plain.width = min(plain.width, _WIDEST) if plain.is_terminal else _WIDEST
    return plain


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> Table:
    """A plain table; the first ``left`` columns are words, the others numbers."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for position, name in enumerate(columns):
        made.add_column(name, justify="left" if position < left else "right", no_wrap=position >= left)
    for row in rows:
        made.add_row(*row)
    return made


def facts(pairs: Sequence[tuple[str, str]]) -> Text:
    """Names and values, one pair a line; long values go on below themselves, and no path is broken."""
    indent = max(len(name) for name, _ in pairs) + 2
    room = max(20, console().width - indent)
    lines = []
    for name, value in pairs:
        wrapped = textwrap.wrap(value, room, break_long_words=False, break_on_hyphens=False)
        lines.append(Text.assemble((name.ljust(indent), "bold"), ("\n" + " " * indent).join(wrapped)))
    return Text("\n", no_wrap=True, overflow="ignore").join(lines)
