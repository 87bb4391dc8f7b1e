"""Rank correlation of a sample drawn with unequal chances, and how often one of a pair wins."""

import numpy as np
from scipy import stats

from scarprune.stats.interval import Estimate

_ROUNDS = 1000


def weighted_ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The share of all weight below each of ``values`` [n], ties at their middle: float64 [n] in (0, 1)."""
    order = np.argsort(values, kind="stable")
    ordered, mass = values[order], np.concatenate([[0.0], np.cumsum(weights[order])])
    low = mass[np.searchsorted(ordered, values, side="left")]
    high = mass[np.searchsorted(ordered, values, side="right")]
    ranks: np.ndarray = (low + high) / 2 / mass[-1]
    return ranks


def weighted_spearman(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> float | None:
    """Spearman's correlation in the population that ``weights`` [n] (inverse chances) stand for.

    None where one of the two is constant.
    """
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    share = weights / weights.sum()
    x, y = (weighted_ranks(values, weights) for values in (a, b))
    x, y = x - share @ x, y - share @ y
    return float((share * x) @ y / np.sqrt(((share * x) @ x) * ((share * y) @ y)))


def spearman_interval(
    a: np.ndarray, b: np.ndarray, weights: np.ndarray, strata: np.ndarray, seed: int = 0
) -> Estimate:
    """``weighted_spearman`` and its percentile bootstrap over the sampled channels, within their strata."""
    value = weighted_spearman(a, b, weights)
    if value is None:
        return Estimate(None, reason="one of the two is the same for every channel")
    if len(a) < 10:
        return Estimate(value, reason=f"an interval needs 10 channels, not {len(a)}")
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(strata == name) for name in np.unique(strata)]
    found = []
    for _ in range(_ROUNDS):
        rows = np.concatenate([rng.choice(group, len(group)) for group in members])
        r = weighted_spearman(a[rows], b[rows], weights[rows])
        if r is not None:
            found.append(r)
    low, high = np.quantile(found, [0.025, 0.975])
    return Estimate(value, float(low), float(high))


def win_rate(wins: int, of: int) -> Estimate:
    """Share of won pairs with Wilson's 95% interval."""
    if not of:
        return Estimate(None, reason="there is no such pair")
    interval = stats.binomtest(wins, of).proportion_ci(method="wilson")
    return Estimate(wins / of, float(interval.low), float(interval.high))
