"""A tiny dense model, the same with half of its channels cut, and text to learn from."""

from typing import Any

import numpy as np

from scarprune.cut.prune import prune_model
from scarprune.text.blocks import Blocks
from support.plans import random_plan
from support.tiny_models import VOCABULARY, WIDTH, tiny_model


def dense_and_cut(family: str = "llama", **config: Any) -> tuple[Any, Any]:
    """A model of random weights, and the same without half of its channels."""
    dense, small = tiny_model(family, **config), tiny_model(family, **config)
    prune_model(small, random_plan(small, WIDTH // 2))
    return dense.requires_grad_(False), small.requires_grad_(False)


def text(blocks: int = 16, length: int = 12) -> Blocks:
    """Blocks of random tokens with BOS 1 in front."""
    ids = np.random.default_rng(0).integers(3, VOCABULARY, size=(blocks, length))
    ids[:, 0] = 1
    return Blocks(ids, np.full(blocks, length), None, "packed", "random tokens", bos=True)
