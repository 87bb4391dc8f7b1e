"""2SSP's statistic: the 2-norm of u over a block's tokens, summed over blocks."""

import torch

from scarprune.profile.statistics.statistic import Statistic


def _of_blocks(tokens: int, abs_u: torch.Tensor, u2: torch.Tensor) -> torch.Tensor:
    return u2.sqrt().sum(0)


STATISTIC = Statistic(
    name="block_norm_u",
    of_blocks=_of_blocks,
    source="2SSP (arXiv 2501.17771), stage 1: mean over samples of the 2-norm over tokens",
)
