"""One pass over text that keeps the moments of every channel's q with a few columns: those of a core."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from scarprune.models.context import context_length, vocabulary_size
from scarprune.models.find import find_sites
from scarprune.models.head import find_head
from scarprune.profile.accumulate import wide
from scarprune.profile.loss import loss_gradient
from scarprune.profile.run import prepared
from scarprune.profile.watch import watching
from scarprune.runtime.progress import track
from scarprune.text.blocks import Blocks
from scarprune.text.fit import check_fits

_HALF_PRECISION_SCALE = 4096.0
_TOKENS_AT_ONCE = 2048


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

    4 m k bytes a site on the model's device while a batch is seen, 8 m k bytes on the CPU.

    Args:
        mean_loss: divide each block's loss by its targets, as the code of arXiv 2604.23475 does.

    Raises:
        TextError: ids outside the vocabulary or blocks beyond the context.
    """
    vocabulary = vocabulary_size(model)
    check_fits(blocks, vocabulary, context_length(model.config))
    sites, head = find_sites(model), find_head(model)
    scale = _HALF_PRECISION_SCALE if model.dtype == torch.float16 else 1.0
    found: dict[str, CoreMoments] = {}
    divisor = scale

    def observe(index: int, u: torch.Tensor, s: torch.Tensor) -> None:
        name = sites[index].name
        q = (wide(u) * (wide(s) / divisor)).flatten(0, -2)
        inside = q.index_select(1, torch.from_numpy(columns[name]).to(q.device))
        parts = (q.sum(0), q.square().sum(0), q.T @ inside)
        first, second, cross = (part.cpu().numpy().astype(np.float64) for part in parts)
        known = found.get(name)
        if known is None:
            found[name] = CoreMoments(first, second, cross)
            return
        known.first += first
        known.second += second
        known.cross += cross

    with (
        prepared(model),
        watching(model, sites, observe),
        track("Redundancy", int(blocks.lengths.sum())) as advance,
    ):
        start = 0
        while start < len(blocks):
            length = int(blocks.lengths[start])
            most = min(len(blocks), start + max(1, _TOKENS_AT_ONCE // length))
            alike = blocks.lengths[start:most] == length
            stop = start + (len(alike) if alike.all() else int(alike.argmin()))
            divisor = scale * (length - 1 if mean_loss else 1)
            ids = torch.from_numpy(blocks.ids[start:stop, :length])
            with torch.enable_grad():
                hidden = head.hidden(ids)
            result = loss_gradient(head, hidden, ids, ("data",), None, vocabulary, scale)
            torch.autograd.backward(hidden, result.gradient["data"])
            advance((stop - start) * length)
            start = stop
    return {site.name: found[site.name] for site in sites}
