"""Watching: the input u of every down projection and the gradient s of the loss that reaches it."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from scarprune.models.site import Site
from scarprune.profile.gate import activation_of, product

Hook = Callable[..., Any]
Observe = Callable[[int, torch.Tensor, torch.Tensor], None]


class _Watch(torch.autograd.Function):
    """The identity on u; on the way back, ``reduce(u, s, *given)`` is what ``sink`` gets for a gradient.

    Nothing but tensors goes in and out, so a compiler takes the sums into the layer's own backward pass.
    The graph begins here where u needs no gradient: nothing below is computed backwards, weights included.
    ``save_for_backward`` keeps u itself: a closure over the hooked tensor would be a reference cycle, and
    activations would stay until the garbage collector runs.
    """

    @staticmethod
    def forward(
        ctx: Any, u: torch.Tensor, sink: torch.Tensor, reduce: Callable[..., Any], *given: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(u, *given)
        ctx.reduce = reduce
        return u.view_as(u)

    @staticmethod
    def backward(ctx: Any, s: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        u, *given = ctx.saved_tensors
        sums = ctx.reduce(u, s, *given)
        return (s if ctx.needs_input_grad[0] else None), sums, None, *(None for _ in given)


class _WatchGate(torch.autograd.Function):
    """The product of a gate and up anew; on the way back, ``reduce`` gives their gradients and the sums.

    Where one read of gate, up and s serves for both, watching reads nothing more, and u is not kept.
    """

    @staticmethod
    def forward(
        ctx: Any,
        gate: torch.Tensor,
        up: torch.Tensor,
        sink: torch.Tensor,
        reduce: Callable[..., Any],
        activation: str,
        *given: torch.Tensor,
    ) -> torch.Tensor:
        ctx.save_for_backward(gate, up, *given)
        ctx.reduce, ctx.activation = reduce, activation
        return product(gate, up, activation)

    @staticmethod
    def backward(ctx: Any, s: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gate, up, *given = ctx.saved_tensors
        to_gate, to_up, sums = ctx.reduce(gate, up, s, *given, activation=ctx.activation)
        return to_gate, to_up, sums, None, None, *(None for _ in given)


_apply: Callable[..., torch.Tensor] = _Watch.apply
_apply_gate: Callable[..., torch.Tensor] = _WatchGate.apply


class Place:
    """What the hooks of one site read: tensors alone, so that one compilation serves all sites.

    Attributes:
        sink: a leaf shaped like the site's sums, which arrive as its gradient; None until the site was seen.
        given: what the sums of the batch at hand need besides u and s.
        inputs: where the sums of the network's input go; None until it was seen.
        gate: of the forward pass under way, until u is there.
        up: likewise.
        activation: the observer's ``reduce_gated`` knows u as this of gate, times up; "" where it does not.
    """

    def __init__(self) -> None:
        self.sink: torch.Tensor | None = None
        self.given: tuple[torch.Tensor, ...] = ()
        self.inputs: torch.Tensor | None = None
        self.gate: torch.Tensor | None = None
        self.up: torch.Tensor | None = None
        self.activation = ""


class Look(NamedTuple):
    """What one site has shown of itself in this process; that it was seen once is enough for all passes.

    Attributes:
        u: of the device, the dtype and the channels of the site's u, and of no tokens.
        activation: with which the kernels give u of its gate and up; "" where they do not.
        inputs: where sums of the network's input go, if any were asked for.
    """

    u: torch.Tensor
    activation: str
    inputs: torch.Tensor | None


Looks = dict[str, Look]  # by the site's name


class Summing(ABC):
    """An observer whose sums of a batch at one site are a pure function of tensors.

    Attributes:
        reduce: (u, s, *given) -> the sums; it reads nothing else that changes.
        reduce_gated: (gate, up, s, *given, activation=...) -> (gradients of gate and up, the sums), or None.
        reduce_input: what is summed of every network's input [..., d] on the way forward, or None.
    """

    reduce: Callable[..., torch.Tensor]
    reduce_gated: Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]] | None = None
    reduce_input: Callable[[torch.Tensor], torch.Tensor] | None = None

    def __init__(self, sites: Sequence[Site]) -> None:
        self.sites = sites
        self.forget()

    def forget(self) -> None:
        """Nothing was seen of any site. A sink refers to its observer and would keep its totals."""
        self.places = [Place() for _ in self.sites]

    @abstractmethod
    def blank(self, index: int, u: torch.Tensor) -> torch.Tensor:
        """A tensor of the shape, dtype and device of a site's sums; its values do not count."""

    @abstractmethod
    def take(self, index: int, sums: torch.Tensor) -> None:
        """The sums of a batch at one site."""

    def given(self, index: int, device: torch.device) -> tuple[torch.Tensor, ...]:
        """What ``reduce`` needs besides u and s at a site, on the site's device."""
        return ()

    def is_ready(self) -> bool:
        """Whether every site was seen, and has what it needs on its device."""
        watched = self.reduce_input is not None
        return all(p.sink is not None and not (watched and p.inputs is None) for p in self.places)

    def renew(self) -> None:
        """Put what ``given`` says of the batch to come where the hooks find it."""
        for index, place in enumerate(self.places):
            if place.sink is not None:
                place.given = self.given(index, place.sink.device)

    def prepare(self, index: int, look: Look) -> None:
        """Make what a site needs, on its device."""
        place = self.places[index]
        place.given, place.inputs = self.given(index, look.u.device), look.inputs
        place.activation = look.activation if self.reduce_gated is not None else ""
        place.sink = self.blank(index, look.u).requires_grad_()

        def arrived(sink: torch.Tensor) -> None:
            assert sink.grad is not None
            sums, sink.grad = sink.grad, None
            self.take(index, sums)

        place.sink.register_post_accumulate_grad_hook(arrived)  # type: ignore[no-untyped-call]


def blank(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A tensor of ``shape`` in the memory of one number."""
    return torch.zeros((), dtype=dtype, device=device).expand(*shape)


@contextlib.contextmanager
def summing(model: nn.Module, sites: Sequence[Site], observer: Summing, looks: Looks) -> Iterator[None]:
    """Give ``observer`` its sums on every backward pass through the sites while the block runs.

    Weights need no gradient, and nothing below the first site's u is computed backwards. Before layers are
    compiled, ``observer`` must be ready: what a site needs is made on the device it is seen on, in a pass
    that runs eagerly. ``looks`` are what was seen before, and what is seen now is added to them.
    """

    def pre_down(index: int, place: Place) -> Hook:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            u, *rest = args
            gate, up, place.gate, place.up = place.gate, place.up, None, None
            if place.sink is None:
                activation = "" if gate is None or up is None else activation_of(gate, up, u)
                look = Look(u.new_empty((0, u.shape[-1])), activation, place.inputs)
                observer.prepare(index, look)
                if observer.reduce_gated is not None:  # else nobody has looked at the gate
                    looks[sites[index].name] = look
            if place.activation:
                assert gate is not None
                assert up is not None
                if u.requires_grad:
                    reduce = observer.reduce_gated
                    return (_apply_gate(gate, up, place.sink, reduce, place.activation, *place.given), *rest)
                # Once forward and once for the way back, a layer gives the same to the last bit.
                u = product(gate, up, place.activation)
            if torch.is_grad_enabled():
                u = _apply(u, place.sink, observer.reduce, *place.given)
            return (u, *rest)

        return hook

    def post_reader(place: Place, role: str) -> Hook:
        def hook(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
            setattr(place, role, output)

        return hook

    def pre_reader(place: Place) -> Hook:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            if not torch.is_grad_enabled():
                return
            assert observer.reduce_input is not None
            sums = observer.reduce_input(args[0].detach())
            if place.inputs is None:
                place.inputs = torch.empty_like(sums)
            place.inputs.copy_(sums)

        return hook

    for index, site in enumerate(sites):
        if site.name in looks:
            observer.prepare(index, looks[site.name])
    hooks = [(site.down.module, pre_down(i, observer.places[i])) for i, site in enumerate(sites)]
    if observer.reduce_input is not None:
        for site, place in zip(sites, observer.places, strict=True):
            hooks.append((site.readers[0].module, pre_reader(place)))
    after = []
    if observer.reduce_gated is not None:
        for site, place in zip(sites, observer.places, strict=True):
            if site.gated and all(reader.parts == 1 for reader in site.readers):
                after += [(reader.module, post_reader(place, reader.role)) for reader in site.readers]
    try:
        with _hooked(model, hooks, after):
            yield
    finally:
        observer.forget()


@contextlib.contextmanager
def watching(model: nn.Module, sites: Sequence[Site], observe: Observe) -> Iterator[None]:
    """Call ``observe(site index, u, s)`` on every backward pass through the sites while the block runs.

    For what is no plain sum; layers are not to be compiled around it.
    """

    def pre_down(index: int) -> Hook:
        def look(u: torch.Tensor, s: torch.Tensor) -> None:
            with torch.no_grad():
                observe(index, u.detach(), s.detach())

        def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            if not torch.is_grad_enabled():
                return args
            u, *rest = args
            return (_apply(u, u.new_zeros(()).requires_grad_(), look), *rest)

        return hook

    with _hooked(model, [(site.down.module, pre_down(index)) for index, site in enumerate(sites)]):
        yield


@contextlib.contextmanager
def _hooked(
    model: nn.Module, before: Sequence[tuple[str, Hook]], after: Sequence[tuple[str, Hook]] = ()
) -> Iterator[None]:
    handles = []
    try:
        for path, hook in before:
            handles.append(model.get_submodule(path).register_forward_pre_hook(hook))
        for path, hook in after:
            handles.append(model.get_submodule(path).register_forward_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()
