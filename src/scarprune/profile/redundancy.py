"""Pass 2: how much each channel's q repeats the q of the core (``method`` 5)."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from scarprune.models.site import Site
from scarprune.profile.token_sums import wide
from scarprune.profile.totals import Totals
from scarprune.profile.watch import blank
from scarprune.runtime.ranks import ALONE, Ranks

TOP = 5
_LARGEST_CORRELATION = 0.9999


def cross_sums(u: torch.Tensor, s: torch.Tensor, core: torch.Tensor) -> torch.Tensor:
    """Sums over tokens of q_i q_s [m, k] for the channels s of ``core`` [k]; one matrix product."""
    q = (wide(u) * s).flatten(0, -2)  # s is widened on the way
    return q.T @ q.index_select(1, core)


def cross_sums_of_part(
    u: torch.Tensor, s: torch.Tensor, columns: torch.Tensor, held: torch.Tensor, group: Any
) -> torch.Tensor:
    """``cross_sums`` of the channels that this process holds, with a core that lies in all of ``group``.

    Args:
        columns: int64 [k], where among the channels of u each channel of the core is, where it is here.
        held: bool [k], whether it is; empty where every process has the whole site.
    """
    q = (wide(u) * s).flatten(0, -2)
    of_core = q.index_select(1, columns)
    if len(held):
        of_core = torch.where(held, of_core, 0.0)
        dist.all_reduce(of_core, group=group)
    return q.T @ of_core


class CrossPass(Totals):
    """Running sums over tokens of q_i q_s for every channel i and core channel s: float64 [m, k] per site.

    2 m k operations a token, one matrix product a batch.
    """

    power = 2

    def __init__(self, sites: Sequence[Site], core: Mapping[str, np.ndarray], ranks: Ranks = ALONE) -> None:
        super().__init__(sites, ranks)
        self._given: list[tuple[torch.Tensor, ...]] = [(torch.from_numpy(core[site.name]),) for site in sites]
        self.reduce = cross_sums
        if ranks.parts > 1:
            self.reduce = functools.partial(cross_sums_of_part, group=ranks.tensor_mesh.get_group())

    def see_first(self, index: int, u: torch.Tensor) -> None:
        """Make what a site needs, on the device of its ``u``, for the channels that ``u`` has."""
        if self.ranks.parts > 1:
            self._given[index] = self._place(self._given[index][0], u.shape[-1], self.sites[index].width)
        super().see_first(index, u)

    def _place(self, core: torch.Tensor, channels: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        """``columns`` and ``held`` of ``cross_sums_of_part``."""
        if channels == width:
            return core, torch.empty(0, dtype=torch.bool)
        start, stop = self.ranks.slice_of(width)
        return (core - start).clamp(0, channels - 1), (core >= start) & (core < stop)

    def blank(self, index: int, u: torch.Tensor) -> torch.Tensor:
        """[m, k] in the dtype of q."""
        return blank((u.shape[-1], len(self._given[index][0])), wide(u[:0]).dtype, u.device)

    def given(self, index: int, device: torch.device) -> tuple[torch.Tensor, ...]:
        """Where the site's core is, copied to its device once."""
        self._given[index] = tuple(tensor.to(device) for tensor in self._given[index])
        return self._given[index]


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
