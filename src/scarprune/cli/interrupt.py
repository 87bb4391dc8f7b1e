"""What is said when Ctrl-C, or the end of another process, ends long work."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from scarprune.errors import ProcessesError


@contextlib.contextmanager
def resumable(partial: Path) -> Iterator[None]:
    """Note on a Ctrl-C or a ProcessesError how to go on, where ``partial`` is left; ``run`` says it."""
    try:
        yield
    except (KeyboardInterrupt, ProcessesError) as interrupt:
        if partial.exists():
            interrupt.add_note(f"What was measured so far is in {partial}.")
            interrupt.add_note("The same command with --resume goes on from there.")
        else:
            interrupt.add_note("Nothing was written; run the same command to begin again.")
        raise
