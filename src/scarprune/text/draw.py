"""Which pieces of a text become blocks."""

import numpy as np


def spread(total: int, count: int, seed: int) -> np.ndarray:
    """``count`` of ``total`` indices, ascending: one drawn from each of ``count`` equal runs.

    So a draw is spread over the whole text, and two seeds give different text even of one document.
    """
    edges = np.arange(count + 1, dtype=np.int64) * total // count
    return np.random.default_rng(seed).integers(edges[:-1], edges[1:])
