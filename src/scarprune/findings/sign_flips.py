"""Redundancy beyond what shared magnitudes of tokens explain: signs flipped by unit (``method`` 10)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from scarprune.stats.interval import Estimate, jackknife, over_units

GROUPS = 8
_FLIPS_OF_AN_INTERVAL = 50
_LARGEST_CORRELATION = 0.9999
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Statistic:
    """Of R channels with one core: ``raw`` [R], the mean Red; ``null`` [F, R], the same under F flips."""

    raw: np.ndarray
    null: np.ndarray

    @property
    def excess(self) -> np.ndarray:
        """``raw`` minus the mean of ``null``: [R]."""
        excess: np.ndarray = self.raw - self.null.mean(axis=0)
        return excess


def signs(flips: int, units: int, seed: int) -> np.ndarray:
    """float32 [flips, units] of +1 and -1, common to all pairs of channels."""
    drawn: np.ndarray = np.random.default_rng(seed).choice(np.array([-1.0, 1.0], np.float32), (flips, units))
    return drawn


def statistic(
    cross: np.ndarray,
    first: tuple[np.ndarray, np.ndarray],
    second: tuple[np.ndarray, np.ndarray],
    count: np.ndarray,
    flips: np.ndarray,
) -> Statistic:
    """Mean over the core of Red(i, s), and under the signs ``flips`` [F, U].

    Args:
        cross: [U, R, K], sums over a unit's tokens of q_i q_s.
        first: [U, R] and [U, K], sums of q.
        second: [U, R] and [U, K], sums of q^2.
        count: [U], tokens.

    With C_g centred by the means of all units, r = sum_g C_g / sqrt(V_i V_s) and
    r* = sum_g e_g C_g / sqrt(V_i V_s). A constant channel has r = 0. No constant is added to V.
    """
    n = count.sum()
    means = [sums.sum(axis=0) / n for sums in first]
    deviations = [_deviation(s.sum(axis=0), mean, n) for s, mean in zip(second, means, strict=True)]
    shift = first[0][:, :, None] * means[1] + means[0][:, None] * first[1][:, None, :]
    centred = cross - shift + count[:, None, None] * np.outer(means[0], means[1])
    units, rows, cols = centred.shape
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = centred / deviations[0][None, :, None] / deviations[1][None, None, :]
    scaled = np.where(np.isfinite(scaled), scaled, 0.0).astype(np.float32)
    raw = _mean_red(scaled.sum(axis=0, dtype=np.float64))
    null = np.empty((len(flips), rows))
    step = max(1, _CHUNK // (rows * cols))
    flat = scaled.reshape(units, rows * cols)
    for start in range(0, len(flips), step):
        part = flips[start : start + step]
        null[start : start + step] = _mean_red((part @ flat).reshape(len(part), rows, cols))
    return Statistic(raw, null)


def of_crossed(crossed: Any, flips: np.ndarray, units: np.ndarray | None = None) -> Statistic:
    """``statistic`` of ``Crossed`` sums, of ``units`` alone where given."""
    chosen = slice(None) if units is None else units
    first, second = crossed.first, crossed.second
    return statistic(
        crossed.cross[chosen],
        (first[0][chosen], first[1][chosen]),
        (second[0][chosen], second[1][chosen]),
        crossed.count[chosen],
        flips[:, chosen],
    )


def without_each_group(crossed: Any, flips: np.ndarray) -> list[Statistic]:
    """The statistic without each of 8 merged groups of units, from the first 50 flips."""
    group = np.arange(len(crossed.count)) * GROUPS // len(crossed.count)
    some = flips[:_FLIPS_OF_AN_INTERVAL]
    return [of_crossed(crossed, some, np.flatnonzero(group != g)) for g in range(GROUPS)]


def flip_p(found: Statistic, rows: np.ndarray) -> float:
    """(1 + flips whose median over ``rows`` is at least the observed one) / (1 + flips)."""
    observed = np.median(found.raw[rows])
    beyond = int((np.median(found.null[:, rows], axis=1) >= observed).sum())
    return (1 + beyond) / (1 + len(found.null))


def log_ratio(a: np.ndarray, b: np.ndarray) -> float | None:
    """log(median a / median b); None unless both medians are positive."""
    if not len(a) or not len(b):
        return None
    x, y = float(np.median(a)), float(np.median(b))
    return float(np.log(x / y)) if x > 0 and y > 0 else None


def auc(a: np.ndarray, b: np.ndarray) -> float | None:
    """Probability that a value of ``a`` exceeds one of ``b``, ties counting half; None where one is empty."""
    if not len(a) or not len(b):
        return None
    ranks = rankdata(np.concatenate([a, b]))[: len(a)]
    return float((ranks.sum() - len(a) * (len(a) + 1) / 2) / (len(a) * len(b)))


def pooled_auc(sites: Iterable[tuple[float | None, int, int]]) -> Estimate:
    """The mean over sites, as units, of the logits of (AUC, channels on one side, channels on the other).

    An AUC of 0 or 1 has no logit, and leaving the site out would leave out the clearest: it counts as half a
    pair away from that end.
    """
    inside = []
    for value, first, second in sites:
        edge = 0.5 / (first * second) if first and second else 0.0
        inside.append(None if value is None else min(max(value, edge), 1 - edge))
    return over_units(inside, "logit")


def estimates(
    whole: tuple[np.ndarray, np.ndarray], left_out: Sequence[tuple[np.ndarray, np.ndarray]]
) -> tuple[Estimate, Estimate]:
    """Log ratio of medians and AUC of (halo, control), each with the interval of the jackknife."""
    return (
        jackknife(log_ratio(*whole), [log_ratio(*pair) for pair in left_out], "identity"),
        jackknife(auc(*whole), [auc(*pair) for pair in left_out], "logit"),
    )


def _mean_red(r: np.ndarray) -> np.ndarray:
    """Mean over the last axis of -1/2 ln(1 - min(r+, 0.9999)^2): nats."""
    mean: np.ndarray = (-0.5 * np.log1p(-(np.clip(r, 0.0, _LARGEST_CORRELATION) ** 2))).mean(axis=-1)
    return mean


def _deviation(second: np.ndarray, mean: np.ndarray, n: float) -> np.ndarray:
    """Root of sum (q - mean)^2; 0 where that is below the rounding of the subtraction."""
    variance = second - n * mean**2
    root: np.ndarray = np.sqrt(np.where(variance > 1e-6 * second, variance, 0.0))
    return root
