"""How much of a total a few channels hold. None where the total is zero: there is nothing to share."""

import numpy as np

from scarprune.stats.select import largest


def share(values: np.ndarray, indices: np.ndarray) -> float | None:
    """What the channels at ``indices`` hold of the sum of ``values`` [m], all of them 0 or more."""
    total = float(values.sum())
    return float(values[indices].sum()) / total if total > 0 else None


def top_share(values: np.ndarray, k: int) -> float | None:
    """What the ``k`` largest of ``values`` [m] hold of their sum."""
    return share(values, largest(values, k))


def effective_number(values: np.ndarray) -> float | None:
    """(sum v)^2 / sum v^2: m where all are equal, 1 where one holds everything."""
    peak = float(values.max())
    if peak <= 0:
        return None
    scaled = values / peak  # squares of tiny losses would vanish
    return float(scaled.sum() ** 2 / np.square(scaled).sum())


def gini(values: np.ndarray) -> float | None:
    """Gini coefficient of ``values`` [m]: 0 where all are equal, 1 - 1/m where one holds everything."""
    total = float(values.sum())
    if total <= 0:
        return None
    m = len(values)
    weights = 2 * np.arange(1, m + 1) - m - 1
    return float((weights * np.sort(values)).sum() / (m * total))
