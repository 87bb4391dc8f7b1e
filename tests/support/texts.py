"""Blocks of token ids: random ones, and ones that a model would write itself."""

from typing import Any

import numpy as np
import torch

from scarprune.models.forward import forward
from scarprune.text.blocks import Blocks


def random_blocks(count: int = 16, length: int = 16, *, vocabulary: int = 90, seed: int = 0) -> Blocks:
    """``count`` blocks of ``length`` tokens in which no text matters."""
    ids = np.random.default_rng(seed).integers(3, vocabulary, (count, length))
    return Blocks(ids, np.full(count, length), bytes=None, protocol="tokens", source="random ids")


@torch.no_grad()
def own_blocks(model: Any, count: int = 64, length: int = 16, *, seed: int = 0) -> Blocks:
    """Text drawn from ``model``, which of all models expects the least loss on it."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 90, (count, 1), generator=generator)
    for _ in range(length - 1):
        logits = forward(model, ids).logits[:, -1].float()
        ids = torch.cat([ids, torch.multinomial(logits.softmax(-1), 1, generator=generator)], dim=1)
    return Blocks(ids.numpy(), np.full(count, length), bytes=None, protocol="tokens", source="its own")
