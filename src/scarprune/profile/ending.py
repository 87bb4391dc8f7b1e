"""What follows the last layer: from its hidden states to those that the head reads."""

from typing import Any

import torch
from torch import nn

from scarprune.models.forward import forward
from scarprune.profile.walk import Walk

_ROUNDINGS = 16  # of its dtype, of the largest state


@torch.no_grad()
def find_ending(walk: Walk) -> list[nn.Module] | None:
    """The modules that the model calls one after another once its last layer is done: its final norm, mostly.

    Found by watching one forward pass. None where calling them in a row does not give what the head reads.
    """
    base: Any = walk.model.base_model
    inside = {id(module) for layer in walk.layers for module in layer.module.modules()}
    leaves = [m for m in base.modules() if id(m) not in inside and not any(m.children())]
    called: list[nn.Module] = []
    last: list[torch.Tensor] = []

    def done(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        called.clear()
        last[:] = [output[0] if isinstance(output, tuple) else output]

    hooks = [leaf.register_forward_hook(lambda module, args, out: called.append(module)) for leaf in leaves]
    hooks.append(walk.layers[-1].module.register_forward_hook(done))
    try:
        expected = getattr(forward(base, walk.ids(walk.batches[0])), "last_hidden_state", None)
    finally:
        for hook in hooks:
            hook.remove()
    if expected is None:
        return None
    ending = list(called)
    hidden = last[0]
    try:
        for module in ending:
            hidden = module(hidden)
    except (TypeError, RuntimeError):  # it takes more than hidden states
        return None
    if not isinstance(hidden, torch.Tensor) or hidden.shape != expected.shape:
        return None
    allowed = _ROUNDINGS * torch.finfo(expected.dtype).eps * expected.abs().max()
    return ending if bool((hidden - expected).abs().max() <= allowed) else None
