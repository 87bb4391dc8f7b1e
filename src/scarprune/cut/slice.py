"""Which rows or columns of each stored tensor a cut keeps; knows nothing of torch."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from scarprune.errors import PlanError
from scarprune.models.site import Site


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """What stays of one tensor along one dimension.

    Attributes:
        dim: the channels' dimension.
        size: how long it is before the cut.
        index: int64, the positions that stay, in their new order; -1 is a padding channel of zeros.
    """

    dim: int
    size: int
    index: np.ndarray

    @property
    def whole(self) -> bool:
        """Whether everything stays where it was."""
        return len(self.index) == self.size and bool((self.index == np.arange(self.size)).all())

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of what stays of a tensor of ``shape``."""
        return (*shape[: self.dim], len(self.index), *shape[self.dim + 1 :])

    def take(self, array: np.ndarray) -> np.ndarray:
        """What stays of ``array``, as a copy."""
        taken: np.ndarray = np.take(array, np.maximum(self.index, 0), axis=self.dim)
        padding = self.index < 0
        if padding.any():
            taken[(slice(None),) * self.dim + (padding,)] = 0
        return taken


def selections(
    site: Site, keep: np.ndarray, width: int | None = None
) -> Iterator[tuple[str, str, Selection]]:
    """Module path, parameter (``weight`` or ``bias``) and selection of every tensor that a cut touches.

    Readers lose rows of weight and bias, both halves of a fused one alike; the down projection loses
    columns, and its bias stays. A transposed weight (Conv1D) swaps rows and columns.

    Args:
        site: with its projections.
        keep: int64, kept channels, ascending.
        width: channels to store, where that is more than ``keep`` has: the rest is padded with zeros.

    Raises:
        PlanError: ``width`` is smaller than the number of kept channels.
    """
    channels = np.full(len(keep) if width is None else width, -1, dtype=np.int64)
    if len(channels) < len(keep):
        raise PlanError(f"{site.name} keeps {len(keep)} channels, which do not fit a width of {width}.")
    channels[: len(keep)] = keep
    readers = {reader.module: reader for reader in site.readers}  # a fused module is two readers, cut once
    for module, reader in readers.items():
        offsets = np.arange(reader.parts)[:, None] * site.width
        index = np.where(channels < 0, -1, channels + offsets).ravel()
        size = site.width * reader.parts
        yield module, "weight", Selection(1 if reader.transposed else 0, size, index)
        yield module, "bias", Selection(0, size, index)
    yield site.down.module, "weight", Selection(0 if site.down.transposed else 1, site.width, channels)
