"""How much two sets of channels have in common, and what chance alone would give."""

import math

import numpy as np


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Size of the intersection over size of the union of two sets of indices; 1 for two empty sets."""
    common = len(np.intersect1d(a, b))
    union = len(a) + len(b) - common
    return common / union if union else 1.0


def expected_jaccard(count: int, first: int, second: int) -> float:
    """Mean Jaccard of two random sets of ``first`` and ``second`` of ``count`` channels.

    The intersection X is hypergeometric, so this is the sum over x of P(X = x) * x / (first + second - x).
    """
    if first == second == 0:
        return 1.0
    whole = _log_choose(count, second)
    return math.fsum(
        math.exp(_log_choose(first, x) + _log_choose(count - first, second - x) - whole)
        * (x / (first + second - x))
        for x in range(max(0, first + second - count), min(first, second) + 1)
    )


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
