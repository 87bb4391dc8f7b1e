"""The halo: the channels outside the core that write where the core writes; and how far each is protected."""

import numpy as np

from scarprune.stats.select import ascending_ranks, floor_share, largest, outside

ETA = 0.10  # share of the channels outside the core
ALPHA = 0.2  # protection of the most redundant halo channel


def halo(conn: np.ndarray, core: np.ndarray, eta: float = ETA) -> np.ndarray:
    """The floor(eta * (m - k)), at least 1, channels outside ``core`` [k] with the largest ``conn`` [m].

    Ascending int64; of equal Conn the lower index comes first; empty where the core is the whole site.
    """
    rest = outside(core, len(conn))
    members: np.ndarray = rest[largest(conn[rest], max(1, floor_share(eta, len(rest))))]
    return members


def protect(red: np.ndarray, halo: np.ndarray) -> np.ndarray:
    """Protect_i in [0.2, 1], float64 [m]: 0.2 + 0.8 * (1 - r_i^8) in the halo, 1 elsewhere.

    r_i is the ascending rank of ``red`` [m] within ``halo``, scaled to 0 .. 1: the more redundant with the
    core, the less protected. Source: arXiv 2604.23475.
    """
    factors = np.ones(len(red))
    if len(halo) > 1:
        r = ascending_ranks(red[halo]) / (len(halo) - 1)
        eighth = np.square(np.square(np.square(r)))  # a library's pow may differ from machine to machine
        factors[halo] = ALPHA + (1 - ALPHA) * (1 - eighth)
    return factors
