"""Minitron's statistic: the squared mean of abs(u) over a block, summed over blocks."""

import torch

from scarprune.profile.statistics.statistic import Statistic


def _of_blocks(tokens: int, abs_u: torch.Tensor, u2: torch.Tensor) -> torch.Tensor:
    return (abs_u / tokens).square().sum(0)


STATISTIC = Statistic(
    name="block_mean_abs_u_squared",
    of_blocks=_of_blocks,
    source="ModelOpt Minitron, importance_hooks/base_hooks.py:L2NormHook; one block is one sample",
)
