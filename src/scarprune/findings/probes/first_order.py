"""The first-order term of the probe text: what its own gradient says that a removal does."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from scarprune.evaluate.removal import Removal
from scarprune.models.context import vocabulary_size
from scarprune.models.find import find_sites
from scarprune.models.head import find_head
from scarprune.profile.loss import loss_gradient
from scarprune.profile.token_sums import wide
from scarprune.profile.watch import watching
from scarprune.runtime.progress import track
from scarprune.text.blocks import Blocks

Gains = Mapping[str, np.ndarray]


def block_gains(model: nn.Module, blocks: Blocks, first_position: int = 0) -> dict[str, np.ndarray]:
    """G_b,i: q = u * dL/du summed over the positions of each block, data labels: site -> float64 [blocks, m].

    Minus G is the first-order change of the block's loss when the channel is set to zero. Positions before
    ``first_position`` do not count.
    """
    sites, head, vocabulary = find_sites(model), find_head(model), vocabulary_size(model)
    rows: dict[str, list[np.ndarray]] = {site.name: [] for site in sites}

    def observe(index: int, u: torch.Tensor, s: torch.Tensor) -> None:
        q = (wide(u) * wide(s)).reshape(-1, u.shape[-1])[first_position:]
        rows[sites[index].name].append(q.sum(0).double().cpu().numpy())

    frozen = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    model.eval()
    try:
        with watching(model, sites, observe), track("First order", int(blocks.lengths.sum())) as advance:
            for block, length in enumerate(blocks.lengths):
                ids = torch.from_numpy(blocks.ids[block : block + 1, :length])
                with torch.enable_grad():
                    hidden = head.hidden(ids)
                found = loss_gradient(head, hidden, ids, ("data",), None, vocabulary)
                torch.autograd.backward(hidden, found.gradient["data"])
                advance(int(length))
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
    return {name: np.stack(values) for name, values in rows.items()}


def gain_of(removal: Removal, gains: Gains) -> np.ndarray:
    """Sum of G over the channels of ``removal`` for each block: float64 [blocks]; for removals to zero."""
    parts = [gains[name][:, channels].sum(axis=1) for name, channels in removal.channels.items()]
    total: np.ndarray = np.sum(parts, axis=0)
    return total
