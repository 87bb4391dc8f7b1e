"""What hidden states after a layer are judged by: how far they are from the dense model's, as a number."""

from collections.abc import Callable

import torch

from scarprune.models.head import find_head
from scarprune.profile.divergence import divergence
from scarprune.profile.ending import find_ending
from scarprune.profile.walk import Walk

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Hidden states [B, T, D] after a layer, those of the dense model there -> mean over tokens, float32 []."""

NEAR_LOGITS = 1  # layers from the end that are judged by what the model predicts


def objectives(walk: Walk, near_logits: int | None = None) -> list[Loss]:
    """One loss a layer: of predictions for the last ``near_logits`` layers, of hidden states before them.

    Where the way from the last layer to the logits is not known, of hidden states for all.
    """
    near = NEAR_LOGITS if near_logits is None else near_logits
    ending = find_ending(walk) if near else None
    head = find_head(walk.model)
    if ending is None or not head.chunked:
        return [relative] * len(walk.layers)
    modules = ending

    def predictions(index: int) -> Loss:
        def finish(hidden: torch.Tensor) -> torch.Tensor:
            for later in range(index + 1, len(walk.layers)):
                hidden = walk.step(later, hidden)
            for module in modules:
                hidden = module(hidden)
            return hidden

        def loss(after: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                target = finish(wanted)
            return divergence(head, finish(after), head, target) / after[..., 0].numel()

        return loss

    first = max(0, len(walk.layers) - near)
    return [relative if i < first else predictions(i) for i in range(len(walk.layers))]


def relative(after: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """|error|^2 of each token over the square of its state, as the norm that reads it sees it.

    Without the division a few tokens with huge states (the first of a block) would be all that counts.
    """
    wanted = wanted.float()
    error = (after.float() - wanted).square().sum(-1)
    return (error / wanted.square().sum(-1).clamp_min(torch.finfo(torch.float32).tiny)).mean()
