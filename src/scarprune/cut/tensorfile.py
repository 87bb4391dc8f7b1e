"""Safetensors files as bytes: pieces of what a cut keeps of a tensor, and the header of the file they go to.

No tensor is ever held whole and no dtype needs to be known to NumPy: bfloat16 is two bytes like any other.
Format: 8 bytes little-endian length, a JSON header, then the data without holes
(https://github.com/huggingface/safetensors#format).
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np

from scarprune.cut.slice import Selection
from scarprune.errors import ArtifactError
from scarprune.models.checkpoint import ITEM_BYTES, Stored

_WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
_PIECE_BYTES = 4 << 20


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
