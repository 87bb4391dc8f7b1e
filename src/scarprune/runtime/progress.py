"""Progress on stderr: a bar with the rate and the time left, and single remarks."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

_quiet = False


def set_quiet(quiet: bool) -> None:
    """Turn all progress and remarks off (``--quiet``) or on."""
    global _quiet
    _quiet = quiet


def console() -> Console:
    """A console on stderr as it is now (tests and notebooks replace it)."""
    return Console(file=sys.stderr, quiet=_quiet, highlight=False, soft_wrap=True)


def is_drawn() -> bool:
    """Whether bars are drawn: on a terminal, unless ``--quiet``."""
    return not _quiet and console().is_terminal


def remark(text: str) -> None:
    """Say one sentence on stderr."""
    console().print(text, markup=False)


def duration(seconds: float) -> str:
    """A time as people say it: ``4.2 s``, ``48 s``, ``12 min`` or ``3.4 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} {self.unit}/s")


@contextlib.contextmanager
def track(what: str, total: float, unit: str = "tokens", done: int = 0) -> Iterator[Callable[[float], None]]:
    """Show a bar while the block runs; yields ``advance(amount)``.

    Where stderr is no terminal nothing is drawn.
    """
    if not is_drawn():
        yield lambda amount: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        _Rate(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(), transient=True) as bar:
        task = bar.add_task(what, total=total, completed=done)
        yield lambda amount: bar.advance(task, amount)
