"""The extra pass ``hessian``: what a channel gives that the others cannot, from damped Gram matrices.

With H = mean over tokens of u u^T + 0.01 * its mean diagonal, removing channel j and letting the others make
the best of it costs at least sum over i of W_ij^2 / (H^-1)_jj of squared output error a token. Source:
SparseGPT, ``sparsegpt.py`` (damping), and OSSCAR, ``prune_algo.py:OSSCAR_fastprune``.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from scarprune.errors import NumericsError
from scarprune.models.site import Site
from scarprune.profile.gram import grams
from scarprune.profile.walk import Walk
from scarprune.profile.weights import weighted_squares
from scarprune.text.blocks import Blocks

DAMPING = 0.01  # of the mean diagonal
MATRICES = 4  # alive at once: the sum, the mean, its factor and the inverse


def hessian_sums(
    model: nn.Module, blocks: Blocks, batch: int, advance: Callable[[float], None]
) -> dict[str, np.ndarray]:
    """The statistics ``hessian/...`` of every site, float64 [m] each; one site's matrices at a time.

    ``down``: 1 / (H^-1)_ii with H of the down projection's input; ``readers``: sum over gate row and up row
    of W_ik^2 / (H^-1)_kk with H of the network's input. A channel or input that is always zero gives 0.

    Raises:
        UnsupportedModelError: the model cannot be walked layer by layer.
        NumericsError: a matrix has no inverse.
    """
    totals: dict[str, np.ndarray] = {}
    for site, of_u, of_x in grams(Walk(model, blocks, batch), inputs=True):
        assert of_x is not None
        down = unexplained(of_u.second_moment(), site)
        readers = weighted_squares(model, site, unexplained(of_x.second_moment(), site))
        totals |= {f"{site.name}/hessian/down": down, f"{site.name}/hessian/readers": readers}
        advance(1)
    return totals


def unexplained(moment: torch.Tensor, site: Site) -> np.ndarray:
    """1 / (H^-1)_jj of the damped second moment [n, n]: float64 [n], 0 where the diagonal is."""
    diagonal = moment.diagonal().clone()
    if not diagonal.any():
        return np.zeros(len(diagonal))
    damped = (moment.cpu() if moment.device.type == "mps" else moment).double()
    damped.diagonal().add_(DAMPING * diagonal.double().mean().item())
    factor, failed = torch.linalg.cholesky_ex(damped)
    if failed:
        raise NumericsError(
            f"The Gram matrix at {site.name} has no inverse, though it is damped.",
            hint="Try --dtype float32.",
        )
    power = torch.cholesky_inverse(factor).diagonal().reciprocal()
    return torch.where(diagonal.to(power.device) > 0, power, 0.0).cpu().numpy()
