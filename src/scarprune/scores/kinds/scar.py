"""The SCAR scores: the loss proxy, lowered where a halo channel repeats what the core does."""

from collections.abc import Sequence

from scarprune.profile.sums import Profile
from scarprune.scores.core import profile_core
from scarprune.scores.halo import halo, protect
from scarprune.scores.kinds.loss import loss_proxy
from scarprune.scores.means import of_sites
from scarprune.scores.score import Score, Values

_NEEDS = ("sum_q2", "conn", "red/top5")
_UNIT = "that of loss_proxy"
_SOURCE = "arXiv 2604.23475, with true correlations (no constant in the denominator)"


def _protection(profile: Profile) -> Values:
    """Protect_i of every site. Core, Conn and Red belong to all positions, whichever bands are scored."""
    core, conn = profile_core(profile), of_sites(profile, "conn")
    red = of_sites(profile, "red/top5")
    return {site: protect(red[site], halo(conn[site], core[site])) for site in core}


def _scar_prot(profile: Profile, bands: Sequence[int]) -> Values:
    factors = _protection(profile)
    return {site: lp * factors[site] for site, lp in loss_proxy(profile, bands).items()}


def _scar_conn(profile: Profile, bands: Sequence[int]) -> Values:
    factors, conn = _protection(profile), of_sites(profile, "conn")
    return {
        site: lp * ((1 - conn[site]) + conn[site] * factors[site])
        for site, lp in loss_proxy(profile, bands).items()
    }


SCORES = (
    Score(
        name="scar_prot",
        formula="LP_i * Protect_i, Protect = 0.2 + 0.8 * (1 - rank(Red_i)^8) in the halo, 1 elsewhere",
        unit=_UNIT,
        source=_SOURCE,
        needs=_NEEDS,
        compute=_scar_prot,
        labels="data",
        keeps_core=True,
    ),
    Score(
        name="scar_conn",
        formula="LP_i * ((1 - Conn_i) + Conn_i * Protect_i)",
        unit=_UNIT,
        source=_SOURCE,
        needs=_NEEDS,
        compute=_scar_conn,
        labels="data",
        keeps_core=True,
    ),
)
