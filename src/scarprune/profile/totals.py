"""Running totals of a pass: a batch counts wholly once it is committed, and not at all before."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from scarprune.errors import NumericsError
from scarprune.models.site import Site
from scarprune.profile.watch import Summing
from scarprune.runtime.device import to_numpy
from scarprune.runtime.ranks import Ranks


class Kept(Summing):
    """Sums that count once a batch is committed, on the device where they were made.

    That makes a batch repeatable: out of memory or Ctrl-C in the middle of it leaves the totals as they were.
    """

    def __init__(self, sites: Sequence[Site], ranks: Ranks) -> None:
        super().__init__(sites)
        self.ranks = ranks
        self._pending: dict[Any, torch.Tensor] = {}
        self._totals: dict[Any, torch.Tensor] = {}

    @abstractmethod
    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Continue from totals that ``arrays`` gave, and from no others."""

    def add_up(self, device: torch.device) -> None:
        """Replace this copy's totals by those of all copies, which meet on ``device``."""
        keys = sorted(self._totals)
        sums = self.ranks.total_of([self._totals[key] for key in keys], device)
        self._totals = dict(zip(keys, sums, strict=True))

    def rest(self) -> None:
        """Leave the totals in CPU memory until the next batch of theirs."""
        self._totals = {key: total.cpu() for key, total in self._totals.items()}

    def pending_is_finite(self) -> bool:
        """Whether the batch just seen holds numbers alone (asks the device, and so waits for it)."""
        return all(bool(torch.isfinite(tensor).all()) for tensor in self._pending.values())


class Totals(Kept):
    """float64 totals of every site, [m, ...] each: one statistic a pass."""

    power = 1  # how the totals grow with the loss
    key = "{}"  # of a site's totals, by its name

    def begin(self, groups: np.ndarray, tokens: int) -> None:
        """Forget what an unfinished batch left."""
        self._pending.clear()
        self.renew()

    def take(self, index: int, sums: torch.Tensor) -> None:
        """The sums of a batch at one site, of the channels that this process holds."""
        self._pending[index] = sums

    def commit(self, scale: float = 1.0) -> None:
        """Add the batch to the totals; ``scale`` is what the loss was multiplied by."""
        for index, pending in self._pending.items():
            # Apple's MPS has no float64: its totals are kept on the CPU.
            batch = (pending.cpu() if pending.device.type == "mps" else pending).double() / scale**self.power
            known = self._totals.get(index)
            self._totals[index] = batch if known is None else add_channels(known, batch, 0, self.ranks)
        self._pending.clear()

    def arrays(self) -> dict[str, np.ndarray]:
        """All totals, float64, of all channels: the parts of a copy call it together."""
        return {
            self.key.format(self.sites[index].name): all_channels(total, 0, self.sites[index], self.ranks)
            for index, total in sorted(self._totals.items())
        }

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Continue from totals that ``arrays`` gave."""
        keys = {self.key.format(site.name): index for index, site in enumerate(self.sites)}
        self._totals = {keys[key]: torch.from_numpy(array.copy()) for key, array in arrays.items()}


def add_channels(known: torch.Tensor, batch: torch.Tensor, dim: int, ranks: Ranks) -> torch.Tensor:
    """``known`` plus ``batch``; of a ``known`` restored whole, only the channels that are held here."""
    if known.shape != batch.shape:
        start, stop = ranks.slice_of(known.shape[dim])
        known = known.narrow(dim, start, stop - start).clone()
    return known.to(batch.device).add_(batch)


def all_channels(total: torch.Tensor, dim: int, site: Site, ranks: Ranks) -> np.ndarray:
    """``total`` with all channels of the site; where each part of a copy holds its own, they are gathered."""
    if total.shape[dim] != site.width:
        total = ranks.line_up(total, dim, site.width)
    return to_numpy(total)


def refuse_non_finite(totals: dict[str, np.ndarray]) -> None:
    """Refuse totals that are no numbers.

    Raises:
        NumericsError: one is not finite.
    """
    for key, array in totals.items():
        if not np.isfinite(array).all():
            raise NumericsError(
                f"{key} is not finite: the loss or its gradient overflowed at this site.",
                hint="Try --dtype bfloat16 or float32.",
            )
