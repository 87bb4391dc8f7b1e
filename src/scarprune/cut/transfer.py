"""One file of weights into another: what stays of each tensor goes through memory piece by piece."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from scarprune.cut.cast import DTYPES, cast
from scarprune.cut.slice import Selection
from scarprune.cut.tensorfile import pieces, write_header
from scarprune.errors import NumericsError
from scarprune.models.checkpoint import Stored, read_header

Advance = Callable[[float], None]  # megabytes


@dataclass(frozen=True, slots=True)
class Transfer:
    """One stored tensor on its way: what stays of it, and the dtype it gets (floating ones alone)."""

    tensor: Stored
    selection: Selection | None = None
    dtype: str | None = None

    @property
    def target(self) -> Stored:
        """The tensor as it will be stored; its place is not known yet."""
        shape = self.tensor.shape if self.selection is None else self.selection.shape(self.tensor.shape)
        floating = self.tensor.dtype in DTYPES.values()
        return replace(self.tensor, shape=shape, dtype=(floating and self.dtype) or self.tensor.dtype)

    def pieces(self, file: BufferedReader) -> Iterator[np.ndarray]:
        """The words of the target in order, read from the source's ``file``."""
        target = self.target
        for words in pieces(file, self.tensor, self.selection):
            yield cast(words, self.tensor.dtype, target.dtype)


def write_file(
    path: Path, transfers: Sequence[Transfer], metadata: Mapping[str, str], advance: Advance
) -> None:
    """Write ``transfers`` as the safetensors file ``path`` and bring it to the disk."""
    with path.open("wb") as file, _sources() as source:
        write_header(file, [transfer.target for transfer in transfers], metadata)
        for transfer in transfers:
            for words in transfer.pieces(source(transfer.tensor.path)):
                file.write(words.data)
            advance(transfer.target.nbytes / 1e6)
        file.flush()
        os.fsync(file.fileno())


def verify_file(path: Path, transfers: Sequence[Transfer], advance: Advance) -> None:
    """Read ``path`` again and compare every tensor with its slice of the source, bit for bit.

    Raises:
        NumericsError: a tensor is missing, in excess, of another shape or dtype, or holds other bits.
    """
    try:
        with safe_open(path, framework="numpy") as opened:  # the library's own checks of the header
            names = set(opened.keys())
    except SafetensorError as error:
        raise NumericsError(f"{path.name} was written, but cannot be read: {error}.") from error
    written = {tensor.name: tensor for tensor in read_header(path)[0]}
    expected = {transfer.tensor.name: transfer for transfer in transfers}
    if not names == written.keys() == expected.keys():
        odd = sorted(names ^ expected.keys())
        raise NumericsError(f"{path.name} was written, but its tensors are not those of the cut: {odd[:3]}.")
    with path.open("rb") as file, _sources() as source:
        for name, transfer in expected.items():
            _compare(file, written[name], transfer, source(transfer.tensor.path))
            advance(transfer.target.nbytes / 1e6)


def _compare(file: BufferedReader, found: Stored, transfer: Transfer, source: BufferedReader) -> None:
    target = transfer.target
    same = (found.dtype, found.shape) == (target.dtype, target.shape)
    file.seek(found.start)
    for words in transfer.pieces(source) if same else ():
        again = np.empty_like(words)
        if file.readinto(again.data.cast("B")) != words.nbytes or not np.array_equal(again, words):
            same = False
            break
    if not same:
        raise NumericsError(
            f"{found.name} in {found.path.name} is not the slice of the source that was to be written.",
            hint="Is the disk sound? The output was not kept.",
        )


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
