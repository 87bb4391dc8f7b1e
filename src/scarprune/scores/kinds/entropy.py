"""Scores from the model's own uncertainty; no labels are asked."""

from collections.abc import Sequence

from scarprune.profile.sums import Profile
from scarprune.scores.score import Score, Values


def _hfprune(profile: Profile, bands: Sequence[int]) -> Values:
    totals = profile.total("entropy/sum_abs_q", bands)
    return {site: total / profile.blocks for site, total in totals.items()}


SCORES = (
    Score(
        name="hfprune",
        formula="(1/B) * sum over tokens of abs(u_i * dE_b/du_i), E_b the mean output entropy of block b",
        unit="nats per token",
        source="HFPrune, prune.py:get_importance_taylor",
        needs=("entropy/sum_abs_q",),
        compute=_hfprune,
    ),
)
