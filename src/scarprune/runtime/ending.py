"""How several processes end when one of them does: soon, and with one sentence between them."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

from torch.distributed.rendezvous import rendezvous

from scarprune.errors import ProcessesError

_SECONDS_TO_END = 5.0  # then a process ends that waits inside a library for one that is gone
_joined: list[tuple[Any, int, int]] = []


def meeting_place() -> tuple[Any, int, int]:
    """The launcher's store, this process's number, and how many there are."""
    if not _joined:
        _joined.append(next(iter(rendezvous("env://"))))
    return _joined[0]


def speaks_first() -> bool:
    """Whether no other process has asked this before: the one that may say why the run ends."""
    if not _joined and "TORCHELASTIC_USE_AGENT_STORE" not in os.environ:
        return os.environ.get("RANK", "0") == "0"  # they all fail alike before they meet
    try:
        return int(meeting_place()[0].add("ended", 1)) == 1
    except RuntimeError:  # the store is gone as well
        return True


def leave(code: int) -> NoReturn:
    """End this process now: torch's own way out may wait for processes that are gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """Raise ProcessesError where the launcher ends this process because another one ended.

    Where Python does not get to it, since a library waits for a process that is gone, the process ends all
    the same.
    """

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise ProcessesError()

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    left = threading.Event()
    threading.Thread(target=_make_sure, args=(reader, left), daemon=True).start()
    handler, wakeup = signal.signal(signal.SIGTERM, end), signal.set_wakeup_fd(writer)
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGTERM, handler)
        os.close(writer)


def _make_sure(reader: int, left: threading.Event) -> None:
    """Wait for the signal (its number is written to the pipe whatever Python does), then for the end."""
    while number := os.read(reader, 1):
        if number[0] == signal.SIGTERM and not left.wait(_SECONDS_TO_END):
            if speaks_first():
                print(f"Error: {ProcessesError()} What was saved before is kept.", file=sys.stderr)
            leave(1)
    os.close(reader)
