"""Running totals of a pass: a batch counts wholly once it is committed, and not at all before."""

from collections.abc import Sequence

import numpy as np
import torch

from scarprune.models.site import Site
from scarprune.profile.watch import Summing


class Totals(Summing):
    """float64 totals by site.

    That makes a batch repeatable: out of memory or Ctrl-C in the middle of it leaves the totals as they were.
    """

    power = 1  # how the totals grow with the loss
    key = "{}"  # of a site's totals, by its name

    def __init__(self, sites: Sequence[Site]) -> None:
        super().__init__(sites)
        self._pending: dict[str, torch.Tensor] = {}
        self._totals: dict[str, torch.Tensor] = {}

    def begin(self, groups: np.ndarray, tokens: int) -> None:
        """Forget what an unfinished batch left."""
        self._pending.clear()
        self.renew()

    def take(self, index: int, sums: torch.Tensor) -> None:
        """The sums of a batch at one site."""
        self._pending[self.key.format(self.sites[index].name)] = sums

    def commit(self, scale: float = 1.0) -> None:
        """Add the batch to the totals; ``scale`` is what the loss was multiplied by."""
        for key, pending in self._pending.items():
            # Apple's MPS has no float64: its totals are kept on the CPU.
            batch = (pending.cpu() if pending.device.type == "mps" else pending).double() / scale**self.power
            known = self._totals.get(key)
            self._totals[key] = batch if known is None else known.to(batch.device).add_(batch)
        self._pending.clear()

    def arrays(self) -> dict[str, np.ndarray]:
        """All totals, float64."""
        return {key: total.cpu().numpy() for key, total in self._totals.items()}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Continue from totals that ``arrays`` gave."""
        self._totals = {key: torch.from_numpy(array.copy()) for key, array in arrays.items()}

    def pending_is_finite(self) -> bool:
        """Whether the batch just seen holds numbers alone (asks the device, and so waits for it)."""
        return all(bool(torch.isfinite(tensor).all()) for tensor in self._pending.values())
