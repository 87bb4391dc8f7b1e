"""Scores from one number per block and channel: one block is one sample."""

from collections.abc import Sequence

import numpy as np

from scarprune.profile.sums import Profile
from scarprune.scores.score import Score, Values


def _minitron(profile: Profile, bands: Sequence[int]) -> Values:
    totals = profile.total("block_mean_abs_u_squared", bands)
    return {site: np.sqrt(total) for site, total in totals.items()}


def _two_ssp(profile: Profile, bands: Sequence[int]) -> Values:
    return {site: total / profile.blocks for site, total in profile.total("block_norm_u", bands).items()}


SCORES = (
    Score(
        name="minitron",
        formula="root of the sum over blocks of (mean over the block of abs(u_i))^2",
        unit="u",
        source="Minitron in NVIDIA ModelOpt, L2NormHook",
        needs=("block_mean_abs_u_squared",),
        compute=_minitron,
    ),
    Score(
        name="two_ssp",
        formula="mean over blocks of norm2 over the block of u_i",
        unit="u",
        source="2SSP (arXiv 2501.17771), stage 1",
        needs=("block_norm_u",),
        compute=_two_ssp,
    ),
)
