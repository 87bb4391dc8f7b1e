"""The gap that removed channels leave in a network's output, judged by second moments of channels alone."""

import numpy as np
import torch
from torch import nn

from scarprune.errors import NumericsError
from scarprune.models.site import Site
from scarprune.models.weights import bias, matrix
from scarprune.profile.gram import Gram


class Gap:
    """What a network writes less after a cut, on held-out text, and how far a change closes it.

    Kept channels K, removed ones R, u their values: the gap of a token is W_R u_R. A change D [d, k] of the
    kept columns and an offset c [d] leave the error W_R u_R - D u_K - c.

    Attributes:
        weight: W [d, m] in the Gram's dtype.
        bias: [d] of the down projection, or None.
        keep: K, int64 [k].
        gone: R, int64 [m - k].
        lost: W_R.
        energy: mean over tokens of |W u|^2, what the network writes without its bias.
        none: mean over tokens of |W_R u_R|^2, the error where nothing is changed.
    """

    def __init__(self, model: nn.Module, site: Site, keep: np.ndarray, held: Gram) -> None:
        """Prepare for the channels ``keep`` of the dense ``model``'s ``site``.

        Raises:
            NumericsError: a channel's values overflowed.
        """
        moment, mean = held.second_moment(), held.mean()
        if not bool(torch.isfinite(moment).all()):
            raise NumericsError(
                f"Products of the channels at {site.name} are not finite.",
                hint="Try --dtype bfloat16 or float32.",
            )
        self.weight, self.bias = matrix(model, site.down).detach().to(moment), bias(model, site.down)
        self.keep = torch.from_numpy(keep).to(moment.device)
        self.gone = torch.from_numpy(np.setdiff1d(np.arange(site.width), keep)).to(moment.device)
        self.lost = self.weight[:, self.gone]
        self._kept = moment[self.keep][:, self.keep]
        self._cross = moment[self.keep][:, self.gone] @ self.lost.T  # [k, d]: mean of u_K (W_R u_R)^T
        self._kept_mean, self._lost_mean = mean[self.keep], self.lost @ mean[self.gone]
        self.energy = _dot(self.weight @ moment, self.weight)
        self.none = _dot(self.lost @ moment[self.gone][:, self.gone], self.lost)

    def error(self, change: torch.Tensor | None = None, offset: torch.Tensor | None = None) -> float:
        """Mean over tokens of |W_R u_R - D u_K - c|^2 for ``change`` D^T [k, d] and ``offset`` c [d]."""
        total, mean = self.none, self._lost_mean
        if change is not None:
            total += _dot(self._kept @ change, change) - 2 * _dot(self._cross, change)
            mean = mean - change.T @ self._kept_mean
        if offset is not None:
            total += _dot(offset, offset) - 2 * _dot(offset, mean)
        return max(total, 0.0)  # rounding may leave a little less than nothing

    def share(self, error: float) -> float:
        """``error`` as a share of what the network writes."""
        return error / self.energy if self.energy else 0.0


def _dot(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a * b).sum())
