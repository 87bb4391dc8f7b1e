"""Least squares for the down projection: kept channels take over what removed ones wrote."""

from dataclasses import dataclass, replace

import torch

from scarprune.cut.compensate.gap import Gap
from scarprune.cut.compensate.job import Job
from scarprune.models.site import Site
from scarprune.profile.gram import Gram

DAMPINGS = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_ITERATIONS = 16


@dataclass(frozen=True, slots=True)
class Solution:
    """The best of several dampings on held-out text, or no change where none is better than that.

    Attributes:
        weights: name of a parameter in the cut model -> its values; empty where nothing is changed.
        error: held-out error as a share of what the network writes.
        none: the same where nothing is changed.
        energy: mean over held-out tokens of the square of what the network writes.
        damping: lambda over the mean of the diagonal; None where nothing is changed.
        condition: estimate of the condition number of the matrix that was solved; None likewise.
    """

    weights: dict[str, torch.Tensor]
    error: float
    none: float
    energy: float
    damping: float | None = None
    condition: float | None = None


def solve(job: Job, site: Site, fit: Gram, held: Gram) -> Solution:
    """W' = W_K + W_R S_RK (S_KK + lambda I)^-1, lambda by the held-out error; S from ``fit``, in float64.

    S is the second moment of the channels, or their covariance where the down projection has a bias, which
    then takes up the difference of the means. A large lambda leaves the weights as they are.
    """
    gap = Gap(job.model, site, job.plan.keep[site.name], held)
    moment, mean = (fit.second_moment() if gap.bias is None else fit.covariance()), fit.mean()
    system, right = moment[gap.keep][:, gap.keep], moment[gap.keep][:, gap.gone] @ gap.lost.T
    size = float(system.diagonal().mean())
    none = gap.share(gap.none)
    best = Solution({}, none, none, gap.energy)
    found: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor] | None = None
    for damping in DAMPINGS:
        damped = system.clone()
        damped.diagonal().add_(damping * size)
        factor, failed = torch.linalg.cholesky_ex(damped)
        if failed:
            continue
        change = torch.cholesky_solve(right, factor)
        shift = None if gap.bias is None else gap.lost @ mean[gap.gone] - change.T @ mean[gap.keep]
        error = gap.share(gap.error(change, shift))
        if error < best.error:
            best = Solution({}, error, none, gap.energy, damping)
            found = change, shift, damped, factor
    if found is None:
        return best
    change, shift, damped, factor = found
    return replace(
        best,
        weights=_weights(job, site, gap, change, shift),
        condition=condition_number(damped, factor),  # costs as much as to solve
    )


def _weights(
    job: Job, site: Site, gap: Gap, change: torch.Tensor, shift: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    name, values = job.stored(site.down, gap.weight[:, gap.keep] + change.T)
    weights = {name: values}
    if gap.bias is not None and shift is not None:
        name = f"{site.down.module}.bias"
        weights[name] = job.rounded(name, gap.bias + shift)
    return weights


def condition_number(matrix: torch.Tensor, factor: torch.Tensor) -> float:
    """The largest over the smallest eigenvalue of a positive definite matrix, by power iterations.

    Args:
        matrix: [k, k].
        factor: its Cholesky factor.

    Returns:
        An estimate from below.
    """
    start = torch.ones(len(matrix), 1, dtype=matrix.dtype, device=matrix.device)
    start[::2] = -0.5  # no eigenvector of a matrix that treats channels alike
    high, low = start / start.norm(), start / start.norm()
    for _ in range(_ITERATIONS):
        high, low = matrix @ high, torch.cholesky_solve(low, factor)
        largest, least = high.norm(), low.norm()
        high, low = high / largest, low / least
    return float(largest * least)
