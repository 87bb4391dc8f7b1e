"""Rank correlation and least squares; None where a column is constant."""

import math

import numpy as np
from scipy.stats import rankdata


def unit_ranks(values: np.ndarray) -> np.ndarray | None:
    """Ranks of ``values`` [m] (equal ones share their mean), centred, of norm 1; None if all are equal.

    The Spearman correlation of two columns is the product of theirs, so that each is ranked once.
    """
    if not len(values) or values.min() == values.max():
        return None
    ranks = rankdata(values)
    ranks -= (len(values) + 1) / 2
    unit: np.ndarray = ranks / np.sqrt(np.square(ranks).sum())
    return unit


def product(a: np.ndarray | None, b: np.ndarray | None) -> float | None:
    """Correlation of two columns from their ``unit_ranks``; None where one is constant."""
    return None if a is None or b is None else float(np.clip(a @ b, -1.0, 1.0))


def spearman(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman correlation of ``a`` and ``b`` [m]; None where one is constant."""
    return product(unit_ranks(a), unit_ranks(b))


def stepped_up(half: float | None) -> float | None:
    """Reliability of the whole, 2 r / (1 + r), from the correlation r of its halves; None unless r > 0.

    Source: Spearman and Brown, 1910.
    """
    return 2 * half / (1 + half) if half is not None and half > 0 else None


def corrected(correlation: float | None, first: float | None, second: float | None) -> float | None:
    """A correlation over the root of two reliabilities; None where one of the three is missing."""
    if correlation is None or first is None or second is None:
        return None
    return correlation / math.sqrt(first * second)


def r_squared(target: np.ndarray, predictors: np.ndarray) -> float | None:
    """R^2 of the least-squares fit of ``target`` [n] by ``predictors`` [n, p] and a constant.

    None where the target is constant, or there are no more points than coefficients.
    """
    n, p = predictors.shape
    if n <= p + 1 or target.min() == target.max():
        return None
    centred, columns = target - target.mean(), predictors - predictors.mean(0)
    coefficients, *_ = np.linalg.lstsq(columns, centred, rcond=None)
    residual = np.square(centred - columns @ coefficients).sum()
    return float(np.clip(1 - residual / np.square(centred).sum(), 0.0, 1.0))
