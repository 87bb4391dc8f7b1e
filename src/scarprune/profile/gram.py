"""Gram matrices of what feed-forward networks read and write through, one site's at a time.

The sum over all tokens of u u^T, where u [m] enters the down projection; where asked for also that of x x^T,
where x [d] enters gate and up.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from scarprune.models.site import Site
from scarprune.profile.hidden import HiddenStates
from scarprune.profile.passes import prepared
from scarprune.profile.walk import Walk


class Gram:
    """Running sums over tokens, in float64 (float32 on MPS, which has no float64).

    Attributes:
        count: tokens.
        sum: [m], of u.
        outer: [m, m], of u u^T.
    """

    def __init__(self, width: int, device: torch.device) -> None:
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.count = 0
        self.sum = torch.zeros(width, dtype=dtype, device=device)
        self.outer = torch.zeros(width, width, dtype=dtype, device=device)

    @torch.no_grad()
    def add(self, u: torch.Tensor) -> None:
        """Add the tokens of ``u`` [..., m]: products of a batch in float32 or better, exact inputs."""
        u = u.flatten(0, -2)
        with torch.autocast(u.device.type, enabled=False):
            self.count += len(u)
            self.sum += u.sum(0, dtype=self.sum.dtype)
            self.outer += _products(u)

    def mean(self) -> torch.Tensor:
        """The mean of u: [m]."""
        return self.sum / self.count

    def second_moment(self) -> torch.Tensor:
        """The mean of u u^T: [m, m]."""
        return self.outer / self.count

    def covariance(self) -> torch.Tensor:
        """The mean of (u - mean)(u - mean)^T: [m, m]."""
        mean = self.mean()
        return self.second_moment().addr_(mean, mean, alpha=-1)


def _products(u: torch.Tensor) -> torch.Tensor:
    """u^T u [m, m] of ``u`` [n, m], in float32, or in float64 where u is."""
    if u.dtype in (torch.float32, torch.float64):
        return u.T @ u
    if u.device.type == "cuda":  # products of 16-bit numbers are exact in float32, and so are tensor cores
        return torch.mm(u.T, u, out_dtype=torch.float32)
    return u.float().T @ u.float()


def grams(walk: Walk, *, inputs: bool = False) -> Iterator[tuple[Site, Gram, Gram | None]]:
    """Layer by layer over the walk's whole text: the site, the Gram of u, and that of x if ``inputs``."""
    states = HiddenStates(walk)
    for index, layer in enumerate(walk.layers):
        yield (layer.site, *layer_grams(states, index, inputs=inputs))


def layer_grams(states: HiddenStates, index: int, *, inputs: bool = False) -> tuple[Gram, Gram | None]:
    """The Gram of u in layer ``index`` (and of x if ``inputs``) while ``states`` go through that layer."""
    walk = states.walk
    site = walk.layers[index].site
    of_u = Gram(site.width, walk.device)
    of_x = Gram(site.hidden, walk.device) if inputs else None
    with contextlib.ExitStack() as hooks, prepared(walk.model):
        hooks.callback(_watch(walk.model.get_submodule(site.down.module), of_u).remove)
        if of_x is not None:
            hooks.callback(_watch(walk.model.get_submodule(site.readers[0].module), of_x).remove)
        states.advance(index)
    return of_u, of_x


def _watch(module: nn.Module, gram: Gram) -> Any:
    def see(module: nn.Module, args: tuple[Any, ...]) -> None:
        gram.add(args[0])

    return module.register_forward_pre_hook(see)
