"""The extra pass ``entropy``: how the model's own uncertainty reacts to each channel; no labels are asked.

Source: HFPrune, ``prune.py:get_importance_taylor``; one block is one sample.
"""

from collections.abc import Sequence

import torch

from scarprune.models.head import Head
from scarprune.models.site import Site
from scarprune.profile.loss import chunk_tokens
from scarprune.profile.token_sums import wide
from scarprune.profile.totals import Totals
from scarprune.profile.watch import blank
from scarprune.runtime.ranks import Ranks


def entropy_sums(u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    """Sums over tokens of abs(q): [m]."""
    return (wide(u) * wide(s)).flatten(0, -2).abs().sum(0)


class EntropyPass(Totals):
    """Sums over tokens of abs(u * dE/du), E the mean output entropy of a block: [m] per site."""

    key = "{}/entropy/sum_abs_q"

    def __init__(self, sites: Sequence[Site], ranks: Ranks) -> None:
        super().__init__(sites, ranks)
        self.reduce = entropy_sums

    def blank(self, index: int, u: torch.Tensor) -> torch.Tensor:
        """[m] in the dtype of q."""
        return blank((u.shape[-1],), wide(u[:0]).dtype, u.device)


def entropy_gradient(head: Head, hidden: torch.Tensor, vocabulary: int, scale: float = 1.0) -> torch.Tensor:
    """d(sum over blocks of their mean output entropy, nats, times ``scale``) / d(hidden): [B, T, D].

    The last position counts: it has an output, though no target.
    """
    states = hidden.detach().reshape(-1, hidden.shape[-1])
    gradient = torch.empty_like(states)
    step = chunk_tokens(vocabulary, hidden.device, head.chunk_bytes)
    for start in range(0, len(states), step):
        part = slice(start, start + step)
        with torch.enable_grad():
            chunk = states[part].requires_grad_()
            log_p = head.logits(chunk).log_softmax(-1)
            entropy = -(log_p.exp() * log_p).sum()
            (grad,) = torch.autograd.grad(entropy * (scale / hidden.shape[1]), chunk)
        gradient[part] = grad
    return gradient.view_as(hidden)
