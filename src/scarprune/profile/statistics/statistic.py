"""What a statistic declares."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch


@dataclass(frozen=True)
class Statistic:
    """A sum over blocks of a function of one block's activations.

    Attributes:
        name: of the tensor in the profile; it begins with ``block_``, since it is summed over blocks.
        of_blocks: (tokens T of a block, sums over T of abs(u) and of u^2, [B, m] each) -> [m], summed over
            B. What those two do not give is one more of ``token_sums.SUMS``, and of its kernel.
        source: of the formula.
    """

    name: str
    of_blocks: Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor]
    source: str


@cache
def statistics() -> tuple[Statistic, ...]:
    """Every statistic declared in this folder as ``STATISTIC``, by name."""
    package = importlib.import_module("scarprune.profile.statistics")
    modules = (
        importlib.import_module(f"{package.__name__}.{module.name}")
        for module in pkgutil.iter_modules(package.__path__)
        if module.name != "statistic"
    )
    return tuple(sorted((module.STATISTIC for module in modules), key=lambda item: item.name))
