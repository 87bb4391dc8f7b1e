"""The divergence on held-out blocks: what decides which weights are kept."""

import numpy as np
import torch

from scarprune.distill.objective import divergence
from scarprune.errors import NumericsError
from scarprune.models.head import Head
from scarprune.runtime.ranks import Ranks
from scarprune.text.blocks import Blocks


class Judge:
    """Mean KL(teacher || student) in nats per token over held-out blocks.

    The teacher reads them once; its final hidden states are kept.
    """

    def __init__(
        self, teacher: Head, blocks: Blocks, at_once: int, device: torch.device, ranks: Ranks
    ) -> None:
        self._teacher = teacher
        self._ranks = ranks
        self._parts = []
        for rows in _parts(blocks, at_once, ranks):
            ids = torch.from_numpy(blocks.ids[rows, : int(blocks.lengths[rows[0]])]).to(device)
            with torch.no_grad():
                self._parts.append((ids, teacher.hidden(ids)))
        self._device = device

    @torch.no_grad()
    def nats(self, student: Head) -> float:
        """Of ``student`` as it is now.

        Raises:
            NumericsError: the divergence is not finite.
        """
        exact = torch.float32 if self._device.type == "mps" else torch.float64
        sums = torch.zeros(2, dtype=exact, device=self._device)
        for ids, wanted in self._parts:
            found = student.hidden(ids)
            sums[0] += divergence(student, found, self._teacher, wanted)
            sums[1] += ids.numel()
        self._ranks.add_up(sums)
        total, tokens = sums.tolist()
        if not np.isfinite(total):
            raise NumericsError(
                f"The divergence on the held-out blocks is {total}.", hint="Use a lower learning rate (--lr)."
            )
        return float(total / tokens)


def _parts(blocks: Blocks, at_once: int, ranks: Ranks) -> list[np.ndarray]:
    """Rows of this process, in parts of one length and at most ``at_once`` blocks."""
    own = np.arange(ranks.rank, len(blocks), ranks.count)
    parts: list[np.ndarray] = []
    for length in np.unique(blocks.lengths[own]):
        alike = own[blocks.lengths[own] == length]
        parts += [alike[start : start + at_once] for start in range(0, len(alike), at_once)]
    return parts
