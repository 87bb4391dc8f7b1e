"""Pass 2: how much each channel's q repeats the q of the core (``method`` 5)."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from scarprune.models.site import Site
from scarprune.profile.accumulate import wide

TOP = 5
_LARGEST_CORRELATION = 0.9999


class CrossPass:
    """Running sums over tokens of q_i q_s for every channel i and core channel s: float64 [m, k] per site.

    2 m k operations a token, one matrix product a batch.
    """

    def __init__(self, sites: Sequence[Site], core: Mapping[str, np.ndarray]) -> None:
        self.sites = sites
        self._core = {site.name: torch.from_numpy(core[site.name]) for site in sites}
        self._pending: dict[int, torch.Tensor] = {}
        self._totals: dict[str, torch.Tensor] = {}

    def begin(self, groups: np.ndarray, tokens: int) -> None:
        """Forget what an unfinished batch left."""
        self._pending.clear()

    def observe(self, index: int, u: torch.Tensor, s: torch.Tensor) -> None:
        """See the u and s of one site, [..., m]."""
        q = (wide(u) * wide(s)).flatten(0, -2)
        core = self._core[self.sites[index].name].to(q.device)
        self._pending[index] = q.T @ q.index_select(1, core)

    def commit(self, scale: float = 1.0) -> None:
        """Add the batch to the totals; ``scale`` is what the loss was multiplied by."""
        for index, cross in self._pending.items():
            key = self.sites[index].name
            double = (cross.cpu() if cross.device.type == "mps" else cross).double() / scale**2
            known = self._totals.get(key)
            self._totals[key] = double if known is None else known.to(double.device).add_(double)
        self._pending.clear()

    def arrays(self) -> dict[str, np.ndarray]:
        """All totals, float64 [m, k] by site."""
        return {key: total.cpu().numpy() for key, total in self._totals.items()}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Continue from totals that ``arrays`` gave."""
        self._totals = {key: torch.from_numpy(array.copy()) for key, array in arrays.items()}

    def pending_is_finite(self) -> bool:
        """Whether the batch just seen holds numbers alone."""
        return all(bool(torch.isfinite(cross).all()) for cross in self._pending.values())


def correlations(
    cross: np.ndarray, sum_q: np.ndarray, sum_q2: np.ndarray, core: np.ndarray, count: int
) -> np.ndarray:
    """Correlation over tokens of q_i with q_s, float64 [m, k]; 0 where one of them is constant.

    No constant is added to a denominator (``method`` 5): a variance is zero or it is not.
    """
    mean = sum_q / count
    variance = sum_q2 / count - mean**2
    # Below the rounding of the subtraction a variance is none.
    variance[variance <= 1e-12 * sum_q2 / count] = 0.0
    covariance = cross / count - np.outer(mean, mean[core])
    deviation = np.sqrt(variance)
    with np.errstate(divide="ignore", invalid="ignore"):
        r = covariance / deviation[:, None] / deviation[None, core]
    constant = (deviation == 0)[:, None] | (deviation[core] == 0)[None, :]
    return np.clip(np.where(constant, 0.0, r), -1.0, 1.0)


def redundancy(r: np.ndarray, core: np.ndarray) -> dict[str, np.ndarray]:
    """What a profile keeps of the correlations ``r`` [m, k]: Red of each channel with the core, in nats.

    ``top5``: mean of the 5 largest Red(i, s), r+ = max(r, 0); ``top5_unsigned``: r+ = abs(r);
    ``mean``: mean over the whole core, signed; ``core``: the core's indices.
    """
    signed, unsigned = _information(np.maximum(r, 0.0)), _information(np.abs(r))
    return {
        "top5": _mean_of_largest(signed),
        "top5_unsigned": _mean_of_largest(unsigned),
        "mean": signed.mean(axis=1),
        "core": core,
    }


def _information(r: np.ndarray) -> np.ndarray:
    """-1/2 ln(1 - r^2): the mutual information of two Gaussians with correlation r, nats."""
    red: np.ndarray = -0.5 * np.log1p(-(np.minimum(r, _LARGEST_CORRELATION) ** 2))
    return red


def _mean_of_largest(red: np.ndarray) -> np.ndarray:
    count = min(TOP, red.shape[1])
    mean: np.ndarray = np.partition(red, red.shape[1] - count, axis=1)[:, -count:].mean(axis=1)
    return mean
