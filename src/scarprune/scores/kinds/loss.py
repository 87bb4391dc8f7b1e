"""Scores from q = u * s with the labels of the text: the paper's loss proxy and its kin."""

from collections.abc import Sequence

import numpy as np

from scarprune.profile.sums import ALL_BANDS, Profile
from scarprune.scores.means import mean
from scarprune.scores.score import Score, Values

_PAPER = "arXiv 2604.23475"
# Data labels give the empirical Fisher: these are nats only as far as it stands for the true one.
_PROXY_UNIT = "nats per token, under the Fisher identity"


def loss_proxy(profile: Profile, bands: Sequence[int] = ALL_BANDS) -> Values:
    """LP_i = 1/2 * (1/N) * sum q_i^2, data labels: site name -> float64 [m]."""
    return {site: 0.5 * q2 for site, q2 in mean(profile, "sum_q2", bands).items()}


def _median(profile: Profile, bands: Sequence[int]) -> Values:
    filled = profile.group_targets > 0
    targets = profile.group_targets[filled, None]
    groups = profile.total("groups_q2", bands)
    return {site: 0.5 * _median_of_rows(q2[filled] / targets) for site, q2 in groups.items()}


def _median_of_rows(groups: np.ndarray) -> np.ndarray:
    """Median over the first axis; for 8 rows, comparing whole rows is several times faster than a sort."""
    rows = list(groups)
    for i in range(len(rows) // 2 + 1):  # the smallest rows up to the middle, in order
        for j in range(i + 1, len(rows)):
            rows[i], rows[j] = np.minimum(rows[i], rows[j]), np.maximum(rows[i], rows[j])
    return np.asarray(0.5 * (rows[(len(rows) - 1) // 2] + rows[len(rows) // 2]))


def _factored(profile: Profile, bands: Sequence[int]) -> Values:
    u2, s2 = mean(profile, "sum_u2", bands), mean(profile, "sum_s2", bands)
    return {site: 0.5 * u2[site] * s2[site] for site in u2}


SCORES = (
    Score(
        name="loss_proxy",
        formula="1/2 * (1/N) * sum q_i^2",
        unit=_PROXY_UNIT,
        source=_PAPER,
        needs=("sum_q2",),
        compute=loss_proxy,
        labels="data",
        aliases=("scar_lp",),
    ),
    Score(
        name="loss_proxy_median",
        formula="1/2 * median over the groups of blocks of (sum q_i^2 / N_g)",
        unit=_PROXY_UNIT,
        source="scarprune: one odd token cannot carry it",
        needs=("groups_q2",),
        compute=_median,
        labels="data",
    ),
    Score(
        name="loss_proxy_factored",
        formula="1/2 * mean(u_i^2) * mean(s_i^2)",
        unit=_PROXY_UNIT,
        source=_PAPER,
        needs=("sum_u2", "sum_s2"),
        compute=_factored,
        labels="data",
    ),
    Score(
        name="taylor",
        formula="mean abs(q_i)",
        unit="nats per token",
        source=_PAPER,
        needs=("sum_abs_q",),
        compute=lambda profile, bands: mean(profile, "sum_abs_q", bands),
        labels="data",
    ),
    Score(
        name="curvature",
        formula="mean s_i^2",
        unit="(nats per unit of u)^2",
        source=_PAPER,
        needs=("sum_s2",),
        compute=lambda profile, bands: mean(profile, "sum_s2", bands),
        labels="data",
    ),
)
