"""How the halo's redundancy depends on rho and K, which other cores and supports need the weights for."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from scarprune.findings.core_moments import CoreMoments, core_moments
from scarprune.findings.sign_flips import auc, log_ratio, pooled_auc
from scarprune.models.site import Site
from scarprune.profile.redundancy import correlations, redundancy
from scarprune.profile.sums import Profile
from scarprune.profile.weights import connection
from scarprune.scores.core import RHO, core
from scarprune.scores.halo import ETA, halo
from scarprune.stats.interval import over_units
from scarprune.stats.overlap import jaccard
from scarprune.stats.select import outside
from scarprune.text.blocks import Blocks

_RHOS = (RHO / 2, 2 * RHO)
_SUPPORTS = (0.5, 2.0)  # times the default, round(d / 16)
_STATISTICS = ("mean", "top5", "top5_unsigned")


def sensitivity_of_core(
    model: Any, sites: Sequence[Site], profile: Profile, blocks: Blocks
) -> list[dict[str, Any]]:
    """Rows as ``sensitivity`` gives them: half and double rho with the default K, half and double K with the
    default rho, by one more pass over ``blocks``.

    Means over cores of other sizes, and top-5 means above all, are not on one scale: a ratio is compared with
    the other statistics of its row's core.
    """
    rho = float(profile.header.get("rho", RHO))
    largest_core = core(profile, min(1.0, max(rho, *_RHOS)))
    moments = core_moments(model, blocks, largest_core)
    default = {site.name: connection(model, site, core(profile, rho)[site.name])["conn"] for site in sites}
    rows = []
    choices = [(other, 1.0) for other in _RHOS] + [(rho, factor) for factor in _SUPPORTS]
    for chosen, factor in choices:
        measured = [
            _of_site(
                model,
                site,
                core(profile, chosen)[site.name],
                largest_core[site.name],
                moments[site.name],
                blocks.targets,
                max(1, round(factor * site.hidden / 16)),
                halo(default[site.name], core(profile, rho)[site.name]),
            )
            for site in sites
        ]
        rows += [_row(chosen, measured, statistic) for statistic in _STATISTICS]
    return rows


def _of_site(
    model: Any,
    site: Site,
    members: np.ndarray,
    columns: np.ndarray,
    moments: CoreMoments,
    count: int,
    size: int,
    default: np.ndarray,
) -> dict[str, Any]:
    found = moments.of_columns(np.searchsorted(columns, members))
    red = redundancy(correlations(found.cross, found.first, found.second, members, count), members)
    inside = halo(connection(model, site, members, size)["conn"], members)
    rest = outside(np.concatenate([members, inside]), site.width)
    return {
        "size": size,
        "same": jaccard(inside, default),
        **{name: (red[name][inside], red[name][rest]) for name in _STATISTICS},
    }


def _row(rho: float, measured: Sequence[dict[str, Any]], statistic: str) -> dict[str, Any]:
    logs = [log_ratio(*site[statistic]) for site in measured]
    areas = [(auc(a, b), len(a), len(b)) for a, b in (site[statistic] for site in measured)]
    return {
        "rho": rho,
        "eta": ETA,
        "support_size": measured[0]["size"],
        "statistic": statistic,
        "ratio": over_units([None if log is None else float(np.exp(log)) for log in logs], "log").as_json(),
        "auc": pooled_auc(areas).as_json(),
        "halo_jaccard_with_default": float(np.median([site["same"] for site in measured])),
    }
