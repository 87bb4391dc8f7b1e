"""What is said when Ctrl-C ends long work."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def resumable(partial: Path) -> Iterator[None]:
    """Say how to go on where the work inside is interrupted and has left ``partial`` behind."""
    try:
        yield
    except KeyboardInterrupt:
        if partial.exists():
            print(f"\nWhat was measured so far is in {partial}.", file=sys.stderr)
            print("The same command with --resume goes on from there.", file=sys.stderr)
        else:
            print("\nNothing was written; run the same command to begin again.", file=sys.stderr)
        raise
