"""The halo as a profile alone shows it: who belongs to it, and how redundant it looks (``method`` 4, 5)."""

from typing import Any

import numpy as np

from scarprune.profile.sums import Profile
from scarprune.scores.core import profile_core
from scarprune.scores.halo import ETA, halo
from scarprune.stats.select import outside
from scarprune.stats.summary import spread

_NO_CONN = (
    "this profile holds no write overlap with the core; adding profiles drops it: profile the joined text"
)
_NO_RED = "this profile has no second pass: profile without --no-redundancy"


def halo_of_profile(profile: Profile) -> dict[str, Any] | None:
    """Membership and redundancy of the halo by site: section ``halo``.

    The ratio of medians stands here without a control: channels of large loss proxy look redundant with each
    other whether or not they write to the same place, so it proves nothing by itself.
    """
    if not profile.has("conn"):
        return {
            "membership": None,
            "redundancy": None,
            "missing": {"membership": _NO_CONN, "redundancy": _NO_CONN},
        }
    members: list[dict[str, Any]] = []
    redundant: list[dict[str, Any]] = []
    for site in profile.sites:
        core, conn = profile_core(profile)[site.name], profile.get(site.name, "conn")
        inside = halo(conn, core)
        rest = outside(np.concatenate([core, inside]), site.width)
        members.append(
            {
                "name": site.name,
                "size": len(inside),
                "conn_median_halo": _median(conn[inside]),
                "conn_median_rest": _median(conn[rest]),
            }
        )
        if profile.has("red/top5"):
            redundant.append({"name": site.name, **_redundancy(profile, site.name, inside, rest)})
    support = profile.get(profile.sites[0].name, "support")
    return {
        "membership": {"eta": ETA, "support_size": len(support), "sites": members},
        "redundancy": {
            "sites": redundant,
            "summary": {"ratio": spread(r["ratio"] for r in redundant).as_json()},
        }
        if redundant
        else None,
        "missing": {} if redundant else {"redundancy": _NO_RED},
    }


def _redundancy(profile: Profile, site: str, inside: np.ndarray, rest: np.ndarray) -> dict[str, float | None]:
    red = profile.get(site, "red/top5")
    a, b = _median(red[inside]), _median(red[rest])
    return {"halo_top5_median": a, "rest_top5_median": b, "ratio": a / b if a is not None and b else None}


def _median(values: np.ndarray) -> float | None:
    return float(np.median(values)) if len(values) else None
