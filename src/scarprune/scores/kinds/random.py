"""The score that knows nothing: what every other must beat."""

from collections.abc import Sequence

import numpy as np

from scarprune.profile.sums import Profile
from scarprune.scores.score import Score, Values


def _uniform(profile: Profile, bands: Sequence[int], *, seed: int = 0) -> Values:
    return {site.name: _draw(seed, index, site.width) for index, site in enumerate(profile.sites)}


def _draw(seed: int, index: int, count: int) -> np.ndarray:
    """Numbers in [0, 1) from the raw counters, which no version of numpy or machine changes."""
    raw = np.random.Philox(key=np.array([seed, index], dtype=np.uint64)).random_raw(count)
    return (raw >> np.uint64(11)) * 2.0**-53


SCORES = (
    Score(
        name="random",
        formula="uniform in [0, 1), Philox keyed by seed and site",
        unit="",
        source="control",
        needs=(),
        compute=_uniform,
        draws=True,
    ),
)
