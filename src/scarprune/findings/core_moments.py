"""One pass over text that keeps the moments of every channel's q with a few columns: those of a core."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from scarprune.models.context import context_length, vocabulary_size
from scarprune.models.find import find_sites
from scarprune.models.site import Site
from scarprune.profile.passes import begin, check, first_scale, prepared
from scarprune.profile.state import Keeper, State
from scarprune.profile.token_sums import wide
from scarprune.text.blocks import Blocks
from scarprune.text.fit import check_fits


@dataclass
class CoreMoments:
    """Sums over all tokens of one site, float64: of q and q^2 [m], and of q_i q_s [m, k] for k columns s."""

    first: np.ndarray
    second: np.ndarray
    cross: np.ndarray

    def of_columns(self, columns: np.ndarray) -> "CoreMoments":
        """The same with the columns at ``columns`` alone."""
        return CoreMoments(self.first, self.second, self.cross[:, columns])


def core_moments(
    model: Any, blocks: Blocks, columns: Mapping[str, np.ndarray], *, mean_loss: bool = False
) -> dict[str, CoreMoments]:
    """Moments of q with data labels: site name -> sums with the channels ``columns`` [k] of that site.

    12 m k bytes a site on the model's device.

    Args:
        mean_loss: divide each block's loss by its targets, as the code of arXiv 2604.23475 does.

    Raises:
        TextError: ids outside the vocabulary, blocks beyond the context or of one token.
        NumericsError: a q is not finite.
        MemoryBudgetError: not even one block fits.
    """
    check("auto", blocks)
    check_fits(blocks, vocabulary_size(model), context_length(model.config))
    sites = find_sites(model)
    moments = _MomentsPass(sites, columns)
    with prepared(model):
        run = begin(
            model,
            sites,
            blocks,
            np.zeros(len(blocks), dtype=np.int64),
            State({}, scale=first_scale(model)),
            Keeper(None),
            batch="auto",
            totals=12 * sum(site.width * (2 + len(columns[site.name])) for site in sites),
            work=float(blocks.lengths.sum()),
            what="Redundancy with the core:",
            mean_loss=mean_loss,
        )
        totals = run.walk(1, moments, ("data",), "Redundancy")
    return {name: CoreMoments(array[:, 0], array[:, 1], array[:, 2:]) for name, array in totals.items()}


class _MomentsPass:
    """Running sums of q, q^2 and q q_s, [m, 2 + k] by site."""

    def __init__(self, sites: Sequence[Site], columns: Mapping[str, np.ndarray]) -> None:
        self.sites = sites
        self._columns = {name: torch.from_numpy(channels) for name, channels in columns.items()}
        self._pending: dict[int, torch.Tensor] = {}
        self._totals: dict[int, torch.Tensor] = {}

    def begin(self, groups: np.ndarray, tokens: int) -> None:
        """Forget what an unfinished batch left."""
        self._pending.clear()

    def observe(self, index: int, u: torch.Tensor, s: torch.Tensor) -> None:
        """See the u and s of one site, [..., m]."""
        q = (wide(u) * wide(s)).flatten(0, -2)
        inside = q.index_select(1, self._columns[self.sites[index].name].to(q.device))
        self._pending[index] = torch.column_stack([q.sum(0), q.square().sum(0), q.T @ inside])

    def commit(self, scale: float = 1.0) -> None:
        """Add the batch to the totals; ``scale`` is what the loss was multiplied by."""
        for index, pending in self._pending.items():
            batch = (pending.cpu() if pending.device.type == "mps" else pending).double() / scale
            batch[:, 1:] /= scale
            known = self._totals.get(index)
            self._totals[index] = batch if known is None else known.to(batch.device).add_(batch)
        self._pending.clear()

    def arrays(self) -> dict[str, np.ndarray]:
        """All totals, float64 [m, 2 + k] by site, in layer order."""
        return {self.sites[index].name: total.cpu().numpy() for index, total in sorted(self._totals.items())}

    def pending_is_finite(self) -> bool:
        """Whether the batch just seen holds numbers alone."""
        return all(bool(torch.isfinite(sums).all()) for sums in self._pending.values())
