"""Scores from the activations and the norm of the column each channel writes."""

from collections.abc import Sequence

import numpy as np

from scarprune.profile.sums import Profile
from scarprune.scores.means import mean, of_sites
from scarprune.scores.score import Score, Values


def _output_power(profile: Profile, bands: Sequence[int]) -> Values:
    norms = of_sites(profile, "down_norm2")
    return {site: u2 * norms[site] ** 2 for site, u2 in mean(profile, "sum_u2", bands).items()}


def _flap_ifv(profile: Profile, bands: Sequence[int]) -> Values:
    means, powers = mean(profile, "sum_u", bands), mean(profile, "sum_u2", bands)
    # A constant u may come out below zero by rounding.
    return {site: np.maximum(power - means[site] ** 2, 0.0) for site, power in powers.items()}


def _flap_wifv(profile: Profile, bands: Sequence[int]) -> Values:
    norms = of_sites(profile, "down_norm2")
    return {site: variance * norms[site] ** 2 for site, variance in _flap_ifv(profile, bands).items()}


SCORES = (
    Score(
        name="activation_power",
        formula="mean u_i^2",
        unit="u^2",
        source="arXiv 2604.23475",
        needs=("sum_u2",),
        compute=lambda profile, bands: mean(profile, "sum_u2", bands),
    ),
    Score(
        name="output_power",
        formula="mean(u_i^2) * norm2(v_i)^2",
        unit="(residual stream)^2",
        source="scarprune: the mean square of what the channel writes",
        needs=("sum_u2", "down_norm2"),
        compute=_output_power,
    ),
    Score(
        name="flap_ifv",
        formula="mean(u_i^2) - mean(u_i)^2",
        unit="u^2",
        source="FLAP (arXiv 2312.11983), IFV with the true variance over tokens",
        needs=("sum_u", "sum_u2"),
        compute=_flap_ifv,
    ),
    Score(
        name="flap_wifv",
        formula="(mean(u_i^2) - mean(u_i)^2) * norm2(v_i)^2",
        unit="(residual stream)^2",
        source="FLAP (arXiv 2312.11983), WIFV with the true variance over tokens",
        needs=("sum_u", "sum_u2", "down_norm2"),
        compute=_flap_wifv,
        aliases=("flap",),
    ),
)
