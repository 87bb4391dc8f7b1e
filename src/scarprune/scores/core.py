"""The core, called supernodes in the paper: the channels of a site that its loss hangs on most."""

import numpy as np

from scarprune.errors import ArgumentError
from scarprune.profile.sums import Profile
from scarprune.stats.select import floor_share, largest

RHO = 0.01


def core(profile: Profile, rho: float = RHO) -> dict[str, np.ndarray]:
    """The k channels of each site with the largest sum of q^2: site name -> ascending int64 [k].

    k = max(1, floor(rho * m)); of equal sums the lower index comes first. Data labels where the profile has
    them, else model labels. Source: arXiv 2604.23475; its tables use the floor.

    Raises:
        ArgumentError: ``rho`` is no number in (0, 1].
    """
    if isinstance(rho, bool) or not isinstance(rho, (int, float)) or not 0 < rho <= 1:
        raise ArgumentError(f"rho must be a share of the channels in (0, 1], not {rho!r}.")
    labels = "data" if "data" in profile.labels else "model"
    totals = profile.total("sum_q2", labels=labels)
    return {site: largest(q2, max(1, floor_share(rho, len(q2)))) for site, q2 in totals.items()}


def profile_core(profile: Profile) -> dict[str, np.ndarray]:
    """The core that the profile's Conn and Red were measured with: ``core`` with the rho it was made with."""
    return core(profile, profile.header.get("rho", RHO))
