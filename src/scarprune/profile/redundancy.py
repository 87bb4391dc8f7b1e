"""Pass 2: how much each channel's q repeats the q of the core (``method`` 5)."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from scarprune.models.site import Site
from scarprune.profile.gate import product
from scarprune.profile.token_sums import fused_with_gate, wide
from scarprune.profile.totals import Totals
from scarprune.profile.watch import Look, blank
from scarprune.runtime.ranks import ALONE, Ranks

TOP = 5
CPU = torch.device("cpu")
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


def beside_gate(
    gate: torch.Tensor,
    up: torch.Tensor,
    s: torch.Tensor,
    *given: torch.Tensor,
    activation: str,
    reduce: Callable[..., torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The gradients of gate and up, and ``reduce`` of u, which is made anew, s, and what is given."""
    flat_gate, flat_up, flat_s = (x.reshape(1, -1, x.shape[-1]) for x in (gate, up, s))
    # Its sums cost next to nothing.
    to_gate, to_up, _ = fused_with_gate(flat_gate, flat_up, flat_s, activation)
    sums = reduce(product(gate, up, activation), s, *given)
    return to_gate.view(gate.shape), to_up.view(up.shape), sums


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
        self.reduce_gated = functools.partial(beside_gate, reduce=self.reduce)

    def prepare(self, index: int, look: Look) -> None:
        """Make what a site needs, on its device, for the channels that are here."""
        if self.ranks.parts > 1:
            channels, width = look.u.shape[-1], self.sites[index].width
            self._given[index] = self._place(self._given[index][0], channels, width)
        super().prepare(index, look)

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
    cross: np.ndarray,
    sum_q: np.ndarray,
    sum_q2: np.ndarray,
    core: np.ndarray,
    count: int,
    device: torch.device = CPU,
) -> torch.Tensor:
    """Correlation over tokens of q_i with q_s, float64 [m, k] on ``device``; 0 where one of them is constant.

    No constant is added to a denominator (``method`` 5): a variance is zero or it is not.
    """
    crossed, first, second, members = (
        torch.from_numpy(array).to(device) for array in (cross, sum_q, sum_q2, core)
    )
    mean = first / count
    variance = second / count - mean.square()
    # Below the rounding of the subtraction a variance is none.
    variance[variance <= 1e-12 * second / count] = 0.0
    covariance = crossed / count - torch.outer(mean, mean[members])
    deviation = variance.sqrt()
    r = covariance / deviation[:, None] / deviation[members]
    constant = (deviation == 0)[:, None] | (deviation[members] == 0)
    return r.masked_fill_(constant, 0.0).clamp_(-1.0, 1.0)


def redundancy(r: torch.Tensor, core: np.ndarray) -> dict[str, np.ndarray]:
    """What a profile keeps of the correlations ``r`` [m, k]: Red of each channel with the core, in nats.

    ``top5``: mean of the 5 largest Red(i, s), r+ = max(r, 0); ``top5_unsigned``: r+ = abs(r);
    ``mean``: mean over the whole core, signed; ``core``: the core's indices.
    """
    signed, unsigned = r.clamp(min=0.0), r.abs()
    top = min(TOP, r.shape[1])
    # Red grows with r+, so the largest of both are the same.
    means = {
        "top5": _information(signed.topk(top).values).mean(1),
        "top5_unsigned": _information(unsigned.topk(top).values).mean(1),
        "mean": _information(signed).mean(1),
    }
    return {name: mean.cpu().numpy() for name, mean in means.items()} | {"core": core}


def _information(r: torch.Tensor) -> torch.Tensor:
    """-1/2 ln(1 - r^2): the mutual information of two Gaussians with correlation r, nats."""
    return -0.5 * torch.log1p(-r.clamp(max=_LARGEST_CORRELATION).square())
