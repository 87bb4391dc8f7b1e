"""One file of weights into another: what stays of each tensor goes through memory piece by piece."""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from safetensors import SafetensorError, safe_open

from scarprune.cut.cast import DTYPES, cast
from scarprune.cut.slice import Selection
from scarprune.cut.tensorfile import pieces, write_header
from scarprune.errors import ArtifactError, NumericsError
from scarprune.models.checkpoint import Stored, read_header

_WAITING = 8  # pieces of a few megabytes


@dataclass(frozen=True, slots=True)
class Transfer:
    """One stored tensor on its way.

    Attributes:
        tensor: where it lies in the source.
        selection: what stays of it; None for all.
        dtype: that it gets (floating ones alone); None for its own.
        words: its new values, given the dtype they are stored in; None for those of the source.
    """

    tensor: Stored
    selection: Selection | None = None
    dtype: str | None = None
    words: Callable[[str], np.ndarray] | None = None

    @property
    def target(self) -> Stored:
        """The tensor as it will be stored; its place is not known yet."""
        shape = self.tensor.shape if self.selection is None else self.selection.shape(self.tensor.shape)
        floating = self.tensor.dtype in DTYPES.values()
        return replace(self.tensor, shape=shape, dtype=(floating and self.dtype) or self.tensor.dtype)

    def pieces(self, file: BufferedReader) -> Iterator[np.ndarray]:
        """The words of the target in order, read from the source's ``file`` unless they are new."""
        target = self.target
        if self.words is not None:
            words = self.words(target.dtype)
            if words.shape != target.shape:
                raise ArtifactError(f"{target.name} is {words.shape} in memory, and {target.shape} when cut.")
            yield words
            return
        for words in pieces(file, self.tensor, self.selection):
            yield cast(words, self.tensor.dtype, target.dtype)


class Checks:
    """Work for a second thread; a little of it may wait, and its errors come out here."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)

    def submit(self, check: Callable[..., None], *args: object) -> None:
        """Have ``check`` called with ``args``."""
        if len(self._waiting) == _WAITING:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(check, *args))

    def finish(self) -> None:
        """Wait for what is left."""
        while self._waiting:
            self._waiting.popleft().result()


def write_file(
    path: Path, transfers: Sequence[Transfer], metadata: Mapping[str, str], checks: Checks
) -> None:
    """Write ``transfers`` as the safetensors file ``path``, and have ``checks`` read all of it again."""
    with path.open("wb") as file, _sources() as source:
        placed = write_header(file, [transfer.target for transfer in transfers], metadata)
        for transfer, tensor in zip(transfers, placed, strict=True):
            for words in transfer.pieces(source(transfer.tensor.path)):
                start = file.tell()
                file.write(words.data)
                file.flush()
                checks.submit(verify_piece, tensor, start, words)
    checks.submit(_settle, path, {tensor.name for tensor in placed})


def verify_piece(tensor: Stored, start: int, words: np.ndarray) -> None:
    """Read a written piece of ``tensor`` again and compare it, bit for bit.

    Raises:
        NumericsError: any bit differs from ``words``.
    """
    again = np.empty_like(words)
    with tensor.path.open("rb") as file:
        file.seek(start)
        read = file.readinto(again.data.cast("B"))
    if read != words.nbytes or not np.array_equal(again, words):
        raise NumericsError(
            f"{tensor.name} in {tensor.path.name} is not the slice of the source that was written.",
            hint="Is the disk sound? The output was not kept.",
        )


def _settle(path: Path, names: set[str]) -> None:
    """Bring a file to the disk, and have its header read by the library and by us."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    try:
        with safe_open(path, framework="numpy") as opened:
            readable = set(opened.keys())
    except SafetensorError as error:
        raise NumericsError(f"{path.name} was written, but cannot be read: {error}.") from error
    if not readable == {tensor.name for tensor in read_header(path)[0]} == names:
        raise NumericsError(f"{path.name} was written, but holds {len(readable)} tensors, not {len(names)}.")


@contextlib.contextmanager
def _sources() -> Iterator[Callable[[Path], BufferedReader]]:
    """Opens each source file once."""
    with contextlib.ExitStack() as stack:
        opened: dict[Path, BufferedReader] = {}

        def source(path: Path) -> BufferedReader:
            if path not in opened:
                opened[path] = stack.enter_context(path.open("rb"))
            return opened[path]

        yield source
