"""Scores from the inverse of damped Gram matrices: what a channel gives that the others cannot."""

from collections.abc import Sequence

from scarprune.profile.sums import Profile
from scarprune.scores.means import of_sites
from scarprune.scores.score import Score, Values


def _obs(profile: Profile, bands: Sequence[int]) -> Values:
    norms = of_sites(profile, "down_norm2")
    return {site: norms[site] ** 2 * power for site, power in profile.total("hessian/down", bands).items()}


def _sparsegpt_sum(profile: Profile, bands: Sequence[int]) -> Values:
    readers = of_sites(profile, "hessian/readers")
    return {site: readers[site] + down for site, down in _obs(profile, bands).items()}


_DAMPED = "H = mean of input input^T + 0.01 * its mean diagonal"

SCORES = (
    Score(
        name="obs",
        formula=f"norm2(v_i)^2 / (H^-1)_ii, {_DAMPED}",
        unit="(residual stream)^2",
        source="OSSCAR (arXiv 2403.12983), first step; the column of optimal brain surgery",
        needs=("hessian/down", "down_norm2"),
        compute=_obs,
        aliases=("osscar",),
    ),
    Score(
        name="sparsegpt_sum",
        formula=f"sum over gate row, up row and v_i of W^2 / (H^-1) of its input, {_DAMPED}",
        unit="output^2",
        source="SparseGPT (arXiv 2301.00774), gathered over a channel as in arXiv 2604.23475; no update",
        needs=("hessian/readers", "hessian/down", "down_norm2"),
        compute=_sparsegpt_sum,
    ),
)
