"""Redundancy with the core as the code of arXiv 2604.23475 has it, epsilon and float32 and all."""

import numpy as np

from scarprune.findings.core_moments import CoreMoments
from scarprune.profile.redundancy import TOP
from scarprune.scores.halo import protect

EPSILON = 1e-8
_LARGEST_CORRELATION = np.float32(0.9999)


def published_redundancy(
    moments: CoreMoments, core: np.ndarray, count: int, *, signed: bool = True, epsilon: float = EPSILON
) -> np.ndarray:
    """Mean of the 5 largest -1/2 ln(1 - r^2) over the core, r = cov / root(var * var + epsilon): float32 [m].

    ``epsilon`` stands inside the root, beside a product of variances of mean-loss gradients that it exceeds
    by far, so that r is a scaled covariance; and where r^2 is below float32's rounding of 1, the result is 0.

    Args:
        moments: of mean losses, with the columns of ``core``.
        core: [k], the channels that the columns belong to.
        count: tokens, the last of each text included.
        signed: whether negative correlations count for nothing (else as positive ones).
    """
    first, second, cross = (
        (sums / count).astype(np.float32) for sums in (moments.first, moments.second, moments.cross)
    )
    variance = np.maximum(second - first * first, np.float32(0))
    covariance = cross - np.outer(first, first[core])
    spread = np.sqrt(np.outer(variance, variance[core]) + np.float32(epsilon))
    r = np.divide(covariance, spread, out=np.zeros_like(covariance), where=spread > 0)
    r = np.clip(r, -_LARGEST_CORRELATION, _LARGEST_CORRELATION)
    if signed:
        r = np.maximum(r, np.float32(0))
    red = np.float32(-0.5) * np.log(np.float32(1) - np.minimum(r * r, _LARGEST_CORRELATION))
    largest = np.sort(red, axis=1)[:, -min(TOP, red.shape[1]) :]
    mean: np.ndarray = largest.mean(axis=1, dtype=np.float32)
    return mean


def published_protection(red: np.ndarray, conn: np.ndarray, halo: np.ndarray) -> np.ndarray:
    """Protect_i [m]: as ``scores.halo.protect``, but of equal redundancies the larger Conn ranks lower.

    That is what a stable sort of a halo in falling order of Conn gives; it matters where many are 0.
    """
    return protect(red, halo[np.argsort(-conn[halo], kind="stable")])
