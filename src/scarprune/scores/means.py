"""From sums to means: what scores are written in."""

from collections.abc import Sequence

import numpy as np

from scarprune.errors import ArgumentError
from scarprune.profile.sums import BANDED, Profile


def mean(profile: Profile, name: str, bands: Sequence[int], labels: str = "data") -> dict[str, np.ndarray]:
    """One banded sum per token: of u over the positions read, of anything with s or q over the N targets.

    Raises:
        ArgumentError: the blocks have no token at the positions of ``bands``.
        ArtifactError: the profile does not hold the sum.
    """
    count = profile.positions(bands) if name in BANDED else profile.targets(bands)
    if count == 0:
        raise ArgumentError(f"The profile has no tokens at the positions of bands={tuple(bands)}.")
    return {site: total / count for site, total in profile.total(name, bands, labels).items()}


def of_sites(profile: Profile, name: str) -> dict[str, np.ndarray]:
    """What is no sum over positions (weight norms, Conn, Red): site name -> array, whatever the bands."""
    return {site.name: profile.get(site.name, name) for site in profile.sites}
