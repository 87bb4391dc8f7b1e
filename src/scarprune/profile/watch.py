"""Watching: the input u of every down projection and the gradient s of the loss that reaches it."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from scarprune.models.site import Site

Observe = Callable[[int, torch.Tensor, torch.Tensor], None]
ObserveInput = Callable[[int, torch.Tensor], None]


class _Watch(torch.autograd.Function):
    """The identity; on the way back it hands (site index, u, s) to ``observe``.

    ``save_for_backward`` keeps u itself: a closure over the hooked tensor would be a reference cycle, and
    activations would stay until the garbage collector runs.
    """

    @staticmethod
    def forward(ctx: Any, u: torch.Tensor, index: int, observe: Observe, root: bool) -> torch.Tensor:
        ctx.save_for_backward(u)
        ctx.index, ctx.observe, ctx.root = index, observe, root
        return u.view_as(u)

    @staticmethod
    def backward(ctx: Any, s: torch.Tensor) -> tuple[torch.Tensor | None, None, None, None]:
        (u,) = ctx.saved_tensors
        with torch.no_grad():
            ctx.observe(ctx.index, u.detach(), s.detach())
        return (None if ctx.root else s), None, None, None


_apply: Callable[..., torch.Tensor] = _Watch.apply


@contextlib.contextmanager
def watching(
    model: nn.Module, sites: Sequence[Site], observe: Observe, observe_input: ObserveInput | None = None
) -> Iterator[None]:
    """Call ``observe(site index, u, s)`` on every backward pass through the sites while the block runs.

    Weights need no gradient: the graph begins at the first site's u, and nothing below it is computed
    backwards. ``observe_input(site index, x)`` sees each network's input on the way forward.
    """

    def pre_down(index: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            u, *rest = args
            if not torch.is_grad_enabled():
                return args
            root = not u.requires_grad
            if root:
                u = u.detach().requires_grad_()
            return (_apply(u, index, observe, root), *rest)

        return hook

    def pre_reader(index: int, see: ObserveInput) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            see(index, args[0].detach())

        return hook

    handles = []
    try:
        for index, site in enumerate(sites):
            down = model.get_submodule(site.down.module)
            handles.append(down.register_forward_pre_hook(pre_down(index)))
            if observe_input is not None:
                reader = model.get_submodule(site.readers[0].module)
                handles.append(reader.register_forward_pre_hook(pre_reader(index, observe_input)))
        yield
    finally:
        for handle in handles:
            handle.remove()
