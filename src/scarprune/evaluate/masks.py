"""A plan as masks: what the cut model would compute, with nothing cut."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from scarprune.models.find import find_sites
from scarprune.models.fingerprint import fingerprint_model
from scarprune.models.forward import device_of
from scarprune.plan.plan import Plan
from scarprune.runtime.device import to_device


@contextlib.contextmanager
def masked(model: Any, plan: Plan) -> Iterator[None]:
    """Zero the channels that ``plan`` removes, at the input of each down projection, while the block runs.

    Weights are not touched; afterwards, also after an exception, no hook is left. Masks may be nested: a
    channel passes if all of them keep it.

    Raises:
        PlanError: the plan is for other sites, widths or weights.
    """
    sites = find_sites(model)
    plan.check(sites, fingerprint_model(model))
    keep = plan.keep
    masks = [torch.zeros(site.width).index_fill(0, torch.from_numpy(keep[site.name]), 1.0) for site in sites]
    # One copy to the device of all: no layer waits for its mask.
    placed = to_device(torch.cat(masks).to(model.dtype), device_of(model))
    with contextlib.ExitStack() as stack:
        for site, mask in zip(sites, torch.split(placed, [site.width for site in sites]), strict=True):
            module = model.get_submodule(site.name)
            stack.callback(module.register_forward_pre_hook(_multiply_by(mask)).remove)
        yield


def _multiply_by(mask: torch.Tensor) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    """A hook that multiplies a module's first input [..., m] by ``mask`` [m]."""
    placed = mask

    def hook(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        nonlocal placed
        u = inputs[0]
        if placed.device != u.device or placed.dtype != u.dtype:
            placed = mask.to(u)  # where accelerate spreads a model, its devices show only in the call
        return (u * placed, *inputs[1:])

    return hook
