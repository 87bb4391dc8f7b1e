"""The loss proxy of parts of a profile's text: what intervals and stability are made of."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from scarprune.profile.sums import ACTIVATION_GROUPS, GROUPS, Profile
from scarprune.scores.core import RHO
from scarprune.stats.interval import Estimate, Scale, jackknife
from scarprune.stats.overlap import expected_jaccard
from scarprune.stats.select import floor_share
from scarprune.stats.summary import spread

NO_LOSS = "every gradient of this site was zero, so there is nothing to share"
CONSTANT = "one of the two columns is constant, so it ranks nothing"


def label_of(profile: Profile) -> str:
    """``data`` where the profile has such labels, else ``model``."""
    return "data" if "data" in profile.labels else "model"


def core_size(profile: Profile, width: int, rho: float | None = None) -> int:
    """k = max(1, floor(rho * width)) with the profile's own rho where none is given."""
    return max(1, floor_share(profile.header.get("rho", RHO) if rho is None else rho, width))


def filled(profile: Profile) -> np.ndarray:
    """Which of the 8 groups of blocks hold a target: indices, ascending."""
    return np.flatnonzero(profile.group_targets > 0)


def group_sums(profile: Profile, site: str, labels: str) -> np.ndarray:
    """Sum of q^2 in each group that is not empty: float64 [groups, m]."""
    sums: np.ndarray = profile.get(site, "groups_q2", labels)[filled(profile)]
    return sums


def filled_quarters(profile: Profile) -> np.ndarray:
    """Which of the 4 groups that u^2 is kept for hold a target."""
    pairs = profile.group_targets.reshape(ACTIVATION_GROUPS, GROUPS // ACTIVATION_GROUPS)
    return np.flatnonzero(pairs.sum(1) > 0)


def quarter_sums(profile: Profile, site: str, labels: str) -> tuple[np.ndarray, np.ndarray]:
    """Sums of q^2 and of u^2 in the same 4 parts of the text (fewer where one is empty): [parts, m] each."""
    chosen = filled_quarters(profile)
    q2 = profile.get(site, "groups_q2", labels)
    return (
        q2.reshape(ACTIVATION_GROUPS, -1, q2.shape[1]).sum(1)[chosen],
        profile.get(site, "groups_u2")[chosen],
    )


def leaving_one_out(groups: np.ndarray) -> np.ndarray:
    """The sum over all groups but one, for each: [groups, m] of sums that are 0 or more."""
    without: np.ndarray = np.maximum(groups.sum(0) - groups, 0.0)  # a subtraction may end below zero
    return without


def halves(count: int) -> dict[str, tuple[Sequence[int], Sequence[int]]]:
    """Two ways to halve ``count`` groups: the first half against the second, and every other one."""
    order = list(range(count))
    return {
        "contiguous": (order[: count // 2], order[count // 2 :]),
        "interleaved": (order[::2], order[1::2]),
    }


def chance(widths: Iterable[int], sizes: Iterable[int]) -> float:
    """Median over sites of the Jaccard index expected of two random sets of a core's size."""
    pairs = list(zip(widths, sizes, strict=True))
    each = {pair: expected_jaccard(pair[0], pair[1], pair[1]) for pair in set(pairs)}
    return float(np.median([each[pair] for pair in pairs]))


def spread_json(values: Iterable[float | None]) -> dict[str, Any]:
    """``median``, ``min``, ``max`` over sites."""
    return spread(values).as_json()


def median_interval(
    values: Sequence[float | None], left_out: Sequence[Sequence[float | None]], scale: Scale
) -> Estimate:
    """Jackknife interval of a median over sites: ``values`` [sites], ``left_out`` [sites][groups]."""
    known = [i for i, value in enumerate(values) if value is not None]
    value = spread(values).median
    groups = zip(*(left_out[i] for i in known), strict=True)
    return jackknife(value, [spread(group).median for group in groups], scale)


def with_reasons(entry: dict[str, Any], reasons: dict[str, str]) -> dict[str, Any]:
    """``entry`` with ``missing``: the reason of each key of ``reasons`` whose value is None."""
    return {**entry, "missing": {key: why for key, why in reasons.items() if entry.get(key) is None}}
