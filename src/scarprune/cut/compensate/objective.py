"""How the error of a layer's output becomes the loss that the layer is trained with and judged by."""

from collections.abc import Callable

import torch

Loss = Callable[[torch.Tensor], torch.Tensor]
"""Error [B, T, D] in float32 -> a number, which the mean over batches of equal shape is taken of."""

Objective = Callable[[int, float], Loss]
"""Index of a layer, and the mean over tokens of the square of what its network writes -> its loss."""


def squared(index: int, energy: float) -> Loss:
    """Mean over tokens of |error|^2, as a share of what the network writes."""
    scale = 1.0 / energy if energy else 1.0

    def loss(error: torch.Tensor) -> torch.Tensor:
        return error.square().sum(-1).mean() * scale

    return loss
