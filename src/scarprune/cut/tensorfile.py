"""Safetensors files as bytes: where each tensor lies, pieces of what a cut keeps of it, and a writer.

No tensor is ever held whole and no dtype needs to be known to NumPy: bfloat16 is two bytes like any other.
Format: 8 bytes little-endian length, a JSON header, then the data without holes
(https://github.com/huggingface/safetensors#format).
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np

from scarprune.cut.slice import Selection
from scarprune.errors import ArtifactError

ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
_WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
_PIECE_BYTES = 8 << 20
_LARGEST_HEADER_BYTES = 100_000_000  # what the safetensors library itself accepts


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor in a file: ``start`` is counted from the file's beginning, in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    start: int

    @property
    def nbytes(self) -> int:
        """How many bytes the tensor takes."""
        return self.items * ITEM_BYTES[self.dtype]

    @property
    def items(self) -> int:
        """How many numbers the tensor holds."""
        return math.prod(self.shape)


def read_header(path: Path) -> tuple[list[Stored], dict[str, str]]:
    """The tensors of a file in the order of their bytes, and the file's metadata.

    Raises:
        ArtifactError: missing, truncated, or no safetensors file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(size - 8, _LARGEST_HEADER_BYTES):
                raise ArtifactError(f"{path} is truncated or not a safetensors file.")
            header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", None) or {}
        spans = sorted(
            (int(entry["data_offsets"][0]), int(entry["data_offsets"][1]), name)
            for name, entry in header.items()
        )
        shapes = {name: tuple(map(int, entry["shape"])) for name, entry in header.items()}
        dtypes = {name: str(entry["dtype"]) for name, entry in header.items()}
    except FileNotFoundError as error:
        raise ArtifactError(f"There is no file {path}.") from error
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged or not a safetensors file: {error}.") from error
    tensors, end = [], 8 + length
    for start, stop, name in spans:
        if dtypes[name] not in ITEM_BYTES:
            raise ArtifactError(f"{path} stores {name} as {dtypes[name]}, which scarprune does not know.")
        tensor = Stored(name, dtypes[name], shapes[name], path, end)
        end += tensor.nbytes
        if (8 + length + start, 8 + length + stop) != (tensor.start, end) or min(shapes[name], default=0) < 0:
            raise ArtifactError(f"{path} is damaged: the bytes of {name} are not where its shape says.")
        tensors.append(tensor)
    if end != size:
        raise ArtifactError(f"{path} is truncated or damaged: it has {size} bytes and should have {end}.")
    return tensors, metadata


def write_header(
    file: BufferedWriter, tensors: Iterable[Stored], metadata: Mapping[str, str]
) -> list[Stored]:
    """Write the header for ``tensors`` in this order; returns them where they will lie."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset, placed = 0, []
    for tensor in tensors:
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        placed.append(offset)
        offset += tensor.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # data begin aligned, as the library writes it
    file.write(len(text).to_bytes(8, "little") + text)
    return [
        replace(t, path=Path(file.name), start=8 + len(text) + o)
        for t, o in zip(tensors, placed, strict=True)
    ]


def pieces(file: BufferedReader, tensor: Stored, selection: Selection | None = None) -> Iterator[np.ndarray]:
    """What stays of a stored tensor, in order, a few megabytes at a time, as unsigned words of its item size.

    Only ascending selections (with padding anywhere) are read in one pass; all cuts are.

    Raises:
        ArtifactError: the file ends before the tensor does.
    """
    if selection is None or selection.whole:
        step = max(1, _PIECE_BYTES // ITEM_BYTES[tensor.dtype])
        for first in range(0, tensor.items, step):
            yield _read(file, tensor, first, min(step, tensor.items - first))
    elif selection.dim == 0:
        yield from _rows(file, tensor, selection)
    else:
        yield from _columns(file, tensor, selection)


def _rows(file: BufferedReader, tensor: Stored, selection: Selection) -> Iterator[np.ndarray]:
    index, width = selection.index, tensor.items // max(tensor.shape[0], 1)
    places = np.maximum.accumulate(np.maximum(index, 0)) if len(index) else index
    step = max(1, _PIECE_BYTES // max(1, width * ITEM_BYTES[tensor.dtype]))
    start = 0
    while start < len(index):
        first = int(places[start])
        stop = min(int(np.searchsorted(places, first + step)), start + step)
        count = int(places[stop - 1]) - first + 1
        block = _read(file, tensor, first * width, count * width).reshape(count, width)
        here = index[start:stop]
        yield Selection(0, count, np.where(here < 0, -1, here - first)).take(block)
        start = stop


def _columns(file: BufferedReader, tensor: Stored, selection: Selection) -> Iterator[np.ndarray]:
    rows, width = tensor.shape
    step = max(1, _PIECE_BYTES // max(1, width * ITEM_BYTES[tensor.dtype]))
    for first in range(0, rows, step):
        count = min(step, rows - first)
        block = _read(file, tensor, first * width, count * width).reshape(count, width)
        yield selection.take(block)


def _read(file: BufferedReader, tensor: Stored, first: int, count: int) -> np.ndarray:
    item = ITEM_BYTES[tensor.dtype]
    words = np.empty(count, dtype=_WORDS[item])
    file.seek(tensor.start + first * item)
    if file.readinto(words.data.cast("B")) != words.nbytes:
        raise ArtifactError(
            f"{tensor.path} ended while {tensor.name} was read.", hint="Is it still being written?"
        )
    return words
