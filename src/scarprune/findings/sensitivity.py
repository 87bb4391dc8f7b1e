"""How the halo's redundancy over the rest depends on eta and on the statistic, from the profile alone."""

from typing import Any

import numpy as np

from scarprune.findings.sign_flips import auc, log_ratio, pooled_auc
from scarprune.profile.sums import Profile
from scarprune.scores.core import profile_core
from scarprune.scores.halo import ETA, halo
from scarprune.stats.interval import over_units
from scarprune.stats.overlap import jaccard
from scarprune.stats.select import outside

_ETAS = (0.05, ETA, 0.20)
_STATISTICS = ("mean", "top5", "top5_unsigned")


def sensitivity(profile: Profile) -> list[dict[str, Any]]:
    """Ratio of medians and AUC of halo against rest, pooled over sites, for each eta and statistic.

    Neither matched nor corrected by sign flips: it compares choices with each other and is no control. Empty
    where the profile has no Conn or no pass 2.
    """
    if not (profile.has("conn") and profile.has("red/top5")):
        return []
    return [_entry(profile, eta, statistic) for eta in _ETAS for statistic in _STATISTICS]


def _entry(profile: Profile, eta: float, statistic: str) -> dict[str, Any]:
    ratios, areas, same = [], [], []
    for site, core in profile_core(profile).items():
        conn, red = profile.get(site, "conn"), profile.get(site, f"red/{statistic}")
        inside = halo(conn, core, eta)
        rest = outside(np.concatenate([core, inside]), len(conn))
        log = log_ratio(red[inside], red[rest])
        ratios.append(None if log is None else float(np.exp(log)))
        areas.append((auc(red[inside], red[rest]), len(inside), len(rest)))
        same.append(jaccard(inside, halo(conn, core)))
    return {
        "rho": profile.header.get("rho"),
        "eta": eta,
        "support_size": len(profile.get(profile.sites[0].name, "support")),
        "statistic": statistic,
        "ratio": over_units(ratios, "log").as_json(),
        "auc": pooled_auc(areas).as_json(),
        "halo_jaccard_with_default": float(np.median(same)),
    }
