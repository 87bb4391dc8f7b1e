"""Scores whose targets were drawn from the model itself: the true Fisher information."""

from collections.abc import Sequence

from scarprune.profile.sums import Profile
from scarprune.scores.means import mean
from scarprune.scores.score import Score, Values

_UNIT = "nats per target"


def _fisher(profile: Profile, bands: Sequence[int]) -> Values:
    return {site: 0.5 * q2 for site, q2 in mean(profile, "sum_q2", bands, labels="model").items()}


def _block_fisher(profile: Profile, bands: Sequence[int]) -> Values:
    totals = profile.total("block_G2", bands, labels="model")
    return {site: 0.5 * total / profile.targets() for site, total in totals.items()}


def _fisher_activation(profile: Profile, bands: Sequence[int]) -> Values:
    power = mean(profile, "sum_u2", bands)
    return {site: fisher * power[site] for site, fisher in _block_fisher(profile, bands).items()}


SCORES = (
    Score(
        name="fisher",
        formula="1/2 * (1/N) * sum q~_i^2",
        unit=_UNIT,
        source="scarprune: loss increase from removing the channel at one random position",
        needs=("sum_q2",),
        compute=_fisher,
        labels="model",
    ),
    Score(
        name="block_fisher",
        formula="1/2 * (1/N) * sum over blocks of G~_b,i^2, G = sum of q over the block",
        unit=_UNIT,
        source="scarprune: second-order loss increase from removing the channel everywhere",
        needs=("block_G2",),
        compute=_block_fisher,
        labels="model",
    ),
    Score(
        name="fisher_activation",
        formula="block_fisher_i * activation_power_i",
        unit="nats per target, times u^2",
        source="scarprune: an empirical lead, without a derivation",
        needs=("block_G2", "sum_u2"),
        compute=_fisher_activation,
        labels="model",
    ),
)
