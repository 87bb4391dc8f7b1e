"""Wanda, abs(weight) * norm2(input), gathered over the weights of a channel in three ways."""

from collections.abc import Sequence

import numpy as np

from scarprune.profile.sums import Profile
from scarprune.scores.means import of_sites
from scarprune.scores.score import Score, Values


def _three_projections(profile: Profile, bands: Sequence[int]) -> Values:
    up, norms = profile.total("wanda_up", bands), of_sites(profile, "down_norm1")
    u2 = profile.total("sum_u2", bands)
    values = {site: up[site] + norms[site] * np.sqrt(u2[site]) for site in u2}
    for site in profile.sites:
        if site.gated:
            values[site.name] += profile.get(site.name, "wanda_gate")
    return values


def _input_norm(profile: Profile, bands: Sequence[int]) -> Values:
    """Root of s_i = (1/B) * sum u_i^2: Wanda's statistic is per sequence, not per token."""
    return {site: np.sqrt(u2 / profile.blocks) for site, u2 in profile.total("sum_u2", bands).items()}


def _wanda_sp(profile: Profile, bands: Sequence[int]) -> Values:
    norms, inputs = of_sites(profile, "down_norm1"), _input_norm(profile, bands)
    return {site.name: norms[site.name] * inputs[site.name] / site.hidden for site in profile.sites}


def _wanda_down(profile: Profile, bands: Sequence[int]) -> Values:
    norms = of_sites(profile, "down_norm2")
    return {site: norms[site] * root for site, root in _input_norm(profile, bands).items()}


SCORES = (
    Score(
        name="wanda",
        formula="sum over gate row, up row and v_i of abs(W) * root(sum of its input^2)",
        unit="weight * input",
        source="Wanda (arXiv 2306.11695), summed over a channel as in arXiv 2604.23475, without padding",
        needs=("wanda_gate", "wanda_up", "down_norm1", "sum_u2"),
        compute=_three_projections,
    ),
    Score(
        name="wanda_sp",
        formula="(1/d) * norm1(v_i) * root(sum u_i^2 / B)",
        unit="weight * input",
        source="Wanda-sp in FLAP (arXiv 2312.11983): mean over v_i of abs(W) * root(s_i); also its WIFN",
        needs=("down_norm1", "sum_u2"),
        compute=_wanda_sp,
        aliases=("flap_wifn",),
    ),
    Score(
        name="wanda_down",
        formula="norm2(v_i) * root(sum u_i^2 / B)",
        unit="weight * input",
        source="Wanda (arXiv 2306.11695), 2-norm over v_i",
        needs=("down_norm2", "sum_u2"),
        compute=_wanda_down,
    ),
)
