"""The folder where an output grows, and where an interrupted run leaves what the next one goes on from."""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from scarprune.artifacts import partial_path
from scarprune.runtime.progress import remark


@contextlib.contextmanager
def workshop(out: Path, resume: bool, keep: Sequence[str]) -> Iterator[Path]:
    """The folder ``OUT.partial``; it goes when the block ends well, else the files named ``keep`` stay."""
    work = partial_path(out)
    if work.exists() and not resume:
        remark(f"Beginning again; {work} of an interrupted run is dropped (--resume would go on from it).")
        shutil.rmtree(work)
    elif resume and not work.exists():
        remark(f"There is no {work} to go on from; beginning at the beginning.")
    work.mkdir(parents=True, exist_ok=True)
    try:
        yield work
    except BaseException:
        for leftover in work.iterdir():
            if leftover.name not in keep:
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        if not any(work.iterdir()):
            work.rmdir()
        raise
    shutil.rmtree(work)
