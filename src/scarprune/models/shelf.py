"""Where weights of layers lie that are not in the model: in the files of a checkpoint, or in CPU memory."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch

from scarprune.errors import ArtifactError
from scarprune.models.checkpoint import Stored

DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_READERS = 4  # threads: one alone copies from the page cache at about 5 GB/s, less than a bus takes


class Shelf(Protocol):
    """The weights of every layer, by number and name."""

    kind: str  # for people: where they lie

    def fetch(self, layer: int, into: Mapping[str, torch.Tensor]) -> None:
        """Write the weights of ``layer`` into CPU tensors of their shapes, rounded to their dtypes."""


class FileShelf:
    """Weights straight from safetensors files: read, not mapped, so that they take none of its memory."""

    kind = "the checkpoint's files"

    def __init__(self, layers: Sequence[Mapping[str, Stored]]) -> None:
        self._layers = layers
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="shelf")

    def fetch(self, layer: int, into: Mapping[str, torch.Tensor]) -> None:
        """Read the weights of ``layer``, several tensors at once."""
        stored = self._layers[layer]
        list(self._readers.map(lambda name: read_stored(stored[name], into[name]), into))


class MemoryShelf:
    """Weights in CPU memory."""

    kind = "CPU memory"

    def __init__(self, layers: Sequence[Mapping[str, torch.Tensor]]) -> None:
        self._layers = layers

    def fetch(self, layer: int, into: Mapping[str, torch.Tensor]) -> None:
        """Copy the weights of ``layer``."""
        for name, target in into.items():
            target.copy_(self._layers[layer][name])


def read_stored(stored: Stored, into: torch.Tensor) -> None:
    """Read one tensor of a file into a contiguous CPU tensor of its shape, rounded to its dtype.

    Raises:
        ArtifactError: the file is gone or shorter than it was.
    """
    dtype = DTYPES[stored.dtype]
    target = into if into.dtype == dtype else torch.empty(stored.shape, dtype=dtype)
    left = memoryview(target.view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
    try:
        with stored.path.open("rb", buffering=0) as file:
            file.seek(stored.start)
            while left:
                count = file.readinto(left)
                if not count:
                    raise ArtifactError(f"{stored.path} is shorter than it was: {stored.name} is not whole.")
                left = left[count:]
    except OSError as error:
        raise ArtifactError(f"{stored.path} cannot be read: {error}.") from error
    if target is not into:
        into.copy_(target)
