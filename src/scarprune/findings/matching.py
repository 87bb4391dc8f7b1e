"""Channels that differ in one thing alone: nearest neighbours in log LP and log n_eff (``method`` 10)."""

from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

CALIPER = 0.25  # standard deviations of the pool, in each direction together


def matched(
    traits: np.ndarray, treated: np.ndarray, pool: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (treated, control) of indices, each control used once, nearest first come in random order.

    Args:
        traits: [m, p], positive; channels with a zero have no logarithm and are never paired.
        treated: indices to find partners for.
        pool: indices of possible partners.
    """
    usable: np.ndarray = np.all(traits > 0, axis=1)
    treated, pool = treated[usable[treated]], pool[usable[pool]]
    if not len(treated) or not len(pool):
        return treated[:0], pool[:0]
    logs = np.log(np.where(usable[:, None], traits, 1.0))
    scale = logs[np.concatenate([treated, pool])].std(axis=0)
    logs = logs / np.where(scale > 0, scale, 1.0)
    distance = cdist(logs[treated], logs[pool])
    pairs = []
    for row in rng.permutation(len(treated)):
        column = int(np.argmin(distance[row]))
        if distance[row, column] <= CALIPER:
            pairs.append((treated[row], pool[column]))
            distance[:, column] = np.inf
    if not pairs:
        return treated[:0], pool[:0]
    first, second = np.array(sorted(pairs), dtype=np.int64).T
    return first, second


def standardised_difference(traits: np.ndarray, a: np.ndarray, b: np.ndarray) -> list[Any]:
    """Difference of the mean logs of each of ``traits`` [m, p] over the pooled standard deviation.

    None where a set is smaller than two or nothing varies; zeros are left out.
    """
    out: list[Any] = []
    for column in traits.T:
        x, y = (np.log(column[i][column[i] > 0]) for i in (a, b))
        if len(x) < 2 or len(y) < 2:
            out.append(None)
            continue
        deviation = np.sqrt((x.var(ddof=1) + y.var(ddof=1)) / 2)
        out.append(float((x.mean() - y.mean()) / deviation) if deviation > 0 else None)
    return out
