"""What a pass tells of every site, and what it asks of those who want to know."""

from typing import Protocol

import numpy as np
import torch


class Observer(Protocol):
    """What sees u and s of every site; a batch counts wholly once ``commit`` is called, not at all before."""

    def begin(self, groups: np.ndarray, tokens: int) -> None:
        """Forget what an unfinished batch left; expect blocks of ``tokens``, of these ``Run.groups``."""

    def commit(self, scale: float = 1.0) -> None:
        """Add the batch to the totals; ``scale`` is what the loss was multiplied by."""

    def arrays(self) -> dict[str, np.ndarray]:
        """All totals."""

    def pending_is_finite(self) -> bool:
        """Whether the batch just seen holds numbers alone."""


class Looking(Observer, Protocol):
    """An observer that looks at u and s themselves, where a ``Summing`` one asks for sums of them."""

    def observe(self, index: int, u: torch.Tensor, s: torch.Tensor) -> None:
        """See u and s of one site; s is multiplied by the scale of the run."""


class Restorable(Observer, Protocol):
    """An observer that goes on from the totals of an earlier run."""

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Continue from totals that ``arrays`` gave."""

    def add_up(self, device: torch.device) -> None:
        """Replace this copy's totals by those of all copies, which meet on ``device``."""
