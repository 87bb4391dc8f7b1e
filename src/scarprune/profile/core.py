"""The core's size and membership: the channels with the largest values (``method`` 3)."""

import math

import numpy as np


def core_size(width: int, rho: float) -> int:
    """k = max(1, floor(rho m)); rho m is rounded to 9 decimals first, so that 0.01 * 1500 is 15."""
    return max(1, math.floor(round(rho * width, 9)))


def largest(values: np.ndarray, count: int) -> np.ndarray:
    """Indices of the ``count`` largest of ``values`` [m], ascending; ties go to the lower index."""
    return np.sort(np.argsort(-values, kind="stable")[:count]).astype(np.int64)
