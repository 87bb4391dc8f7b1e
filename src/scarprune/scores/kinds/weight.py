"""Scores from the weights alone; positions, text and labels play no part."""

from collections.abc import Sequence

from scarprune.profile.sums import Profile
from scarprune.scores.means import of_sites
from scarprune.scores.score import Score, Values


def _weight_norm(profile: Profile, bands: Sequence[int]) -> Values:
    up, down = of_sites(profile, "up_norm2"), of_sites(profile, "down_norm2")
    values = {site: up[site] + down[site] for site in up}
    for site in profile.sites:
        if site.gated:
            values[site.name] += profile.get(site.name, "gate_norm2")
    return values


SCORES = (
    Score(
        name="weight_norm",
        formula="norm2(gate row i) + norm2(up row i) + norm2(v_i)",
        unit="weight",
        source="Magnitude in arXiv 2604.23475",
        needs=("gate_norm2", "up_norm2", "down_norm2"),
        compute=_weight_norm,
        aliases=("magnitude",),
    ),
    Score(
        name="weight_norm_down",
        formula="norm2(v_i)",
        unit="weight",
        source="arXiv 2604.23475",
        needs=("down_norm2",),
        compute=lambda profile, bands: of_sites(profile, "down_norm2"),
    ),
)
