"""How much of a site's loss proxy its core holds, and how sure that is (``method`` 3)."""

from typing import Any

import numpy as np

from scarprune.findings.resample import (
    NO_LOSS,
    core_size,
    filled,
    group_sums,
    halves,
    leaving_one_out,
    median_interval,
    spread_json,
    with_reasons,
)
from scarprune.profile.sums import ALL_BANDS, Profile
from scarprune.stats.concentration import effective_number, gini, share, top_share
from scarprune.stats.interval import jackknife
from scarprune.stats.select import floor_share, largest

CURVE = (0.001, 0.01, 0.05, 0.1)
BANDS = {"all": ALL_BANDS, "without_position_0": (1, 2), "without_first_4": (2,)}
_EMPTY = "no loss at these positions"


def concentration(profile: Profile) -> dict[str, Any]:
    """Shares of the loss proxy by site and over sites, for each kind of labels that the profile has.

    The core is chosen anew for every band of positions, every group left out and every half. Intervals:
    jackknife over the groups of blocks on the logit scale.
    """
    return {"labels": {labels: _of_labels(profile, labels) for labels in profile.labels}}


def _of_labels(profile: Profile, labels: str) -> dict[str, Any]:
    totals = {name: profile.total("sum_q2", bands, labels) for name, bands in BANDS.items()}
    sites, left_out = [], []
    for site in profile.sites:
        banded = {name: total[site.name] for name, total in totals.items()}
        entry, without = _of_site(profile, site.name, banded, labels)
        sites.append(entry)
        left_out.append(without)
    plain = [entry["core_share"]["value"] for entry in sites]
    summary: dict[str, Any] = {
        "core_share": spread_json(plain) | {"interval": median_interval(plain, left_out, "logit").as_json()},
        "by_bands": {name: spread_json(entry["by_bands"][name] for entry in sites) for name in BANDS},
    }
    for key in ("cross_fitted", "max_over_mean", "gini", "effective_channels"):
        summary[key] = spread_json(entry[key] for entry in sites)
    return {"sites": sites, "summary": summary}


def _of_site(
    profile: Profile, name: str, banded: dict[str, np.ndarray], labels: str
) -> tuple[dict[str, Any], list[float | None]]:
    q2 = banded["all"]
    k, mean = core_size(profile, len(q2)), float(q2.mean())
    value = top_share(q2, k)
    groups = group_sums(profile, name, labels)
    without = [top_share(rest, k) for rest in leaving_one_out(groups)] if len(groups) > 1 else []
    changes = [abs(other - value) for other in without if other is not None and value is not None]
    entry: dict[str, Any] = {
        "name": name,
        "core_share": jackknife(value, without, "logit").as_json(),
        "curve": {str(part): top_share(q2, max(1, floor_share(part, len(q2)))) for part in CURVE},
        "max_over_mean": float(q2.max()) / mean if mean > 0 else None,
        "gini": gini(q2),
        "effective_channels": effective_number(q2),
        "by_bands": {band: top_share(total, k) for band, total in banded.items()},
        "cross_fitted": cross_fitted(groups, k),
        "largest_change_leaving_one_group": max(changes, default=None),
    }
    entry = with_reasons(entry, _reasons(profile, value))
    entry["missing"] |= {
        f"by_bands.{band}": _EMPTY for band, part in entry["by_bands"].items() if part is None
    }
    return entry, without


def cross_fitted(groups: np.ndarray, k: int) -> float | None:
    """Share of one half's sum in the ``k`` channels that are largest in the other, averaged over both ways.

    Args:
        groups: [groups, m], of which the first half is held against the second.
    """
    a, b = (groups[list(part)].sum(0) for part in halves(len(groups))["contiguous"])
    one, other = share(b, largest(a, k)), share(a, largest(b, k))
    return None if one is None or other is None else 0.5 * (one + other)


def _reasons(profile: Profile, value: float | None) -> dict[str, str]:
    if value is None:
        keys = ("cross_fitted", "largest_change_leaving_one_group", "max_over_mean", "gini")
        return dict.fromkeys((*keys, "effective_channels"), NO_LOSS)
    groups = len(filled(profile))
    few = f"the blocks fill {groups} of the 8 groups; this needs 2 with loss in both"
    return dict.fromkeys(("cross_fitted", "largest_change_leaving_one_group"), few)
