"""A model one layer at a time: the hidden states of a whole text, carried from layer to layer.

What needs all tokens at one layer before the next begins (Gram matrices, refits) holds one layer's statistics
and one hidden state per token, instead of every layer's statistics at once.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from scarprune.errors import UnsupportedModelError
from scarprune.models.find import family_of_model, find_sites
from scarprune.models.forward import forward, input_device
from scarprune.models.site import Site
from scarprune.text.blocks import Blocks

Call = tuple[tuple[Any, ...], dict[str, Any]]

_AGREES = 1e-2  # of the largest hidden state: rounding alone stays below it in any dtype
_CHECKED_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Layer:
    """One transformer layer and the feed-forward network in it.

    Attributes:
        site: at the input of its down projection.
        name: path of the layer in the model.
        module: the layer.
    """

    site: Site
    name: str
    module: nn.Module


class _Stop(Exception):
    """Raised at the first layer once its input has been seen."""


class Walk:
    """Layers of a model, what each is called with, and the text's hidden states before the first.

    Attributes:
        layers: those that hold a site, in order; every layer of a dense model does.
        batches: rows of the blocks in each batch; all blocks of a batch have one length.
        device: where the layers compute.
    """

    def __init__(self, model: nn.Module, blocks: Blocks, batch: int) -> None:
        """Find the layers and see what the model calls them with.

        Args:
            model: on one device, in evaluation mode.
            blocks: the text.
            batch: blocks at once.

        Raises:
            UnsupportedModelError: calling the layers one by one is not what the model computes.
        """
        self.model = model
        self.blocks = blocks
        self.layers = layers_of(model)
        self.batches = _batches(blocks.lengths, batch)
        self.device = input_device(model)
        self._calls: dict[tuple[int, int], list[Call]] = {}
        self._more: list[int | None] = []  # what a layer returns after its hidden states; None: no tuple
        self._check()
        for rows in self.batches:
            self.calls(len(rows), int(blocks.lengths[rows[0]]))

    def ids(self, rows: np.ndarray) -> torch.Tensor:
        """Token ids [B, T] of the blocks ``rows``, on the device."""
        length = int(self.blocks.lengths[rows[0]])
        return torch.from_numpy(self.blocks.ids[rows, :length]).to(self.device)

    @torch.no_grad()
    def embedded(self, rows: np.ndarray) -> torch.Tensor:
        """What the first layer is given for the blocks ``rows``: [B, T, D]."""
        seen: list[torch.Tensor] = []

        def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen.append(args[0] if args else kwargs["hidden_states"])
            raise _Stop

        handle = self.layers[0].module.register_forward_pre_hook(stop, with_kwargs=True)
        try:
            forward(self.model.base_model, self.ids(rows))
        except _Stop:
            return seen[0]
        finally:
            handle.remove()
        raise UnsupportedModelError(f"{self.layers[0].name} is not called by the model's forward pass.")

    def step(
        self, index: int, hidden: torch.Tensor, module: Callable[..., Any] | None = None
    ) -> torch.Tensor:
        """The hidden states [B, T, D] after layer ``index``, or after ``module`` called in its place."""
        args, kwargs = self.calls(hidden.shape[0], hidden.shape[1])[index]
        out = (module or self.layers[index].module)(hidden, *args, **kwargs)
        return _states(out)

    # -- how the model calls its layers ------------------------------------------------------------

    @torch.no_grad()
    def calls(self, blocks: int, length: int) -> list[Call]:
        """What each layer is called with besides hidden states [``blocks``, ``length``, D]."""
        shape = (blocks, length)
        if shape not in self._calls:
            calls: list[Call] = []
            with self.passing(calls.append):
                ids = torch.zeros(shape, dtype=torch.int64, device=self.device)
                forward(self.model.base_model, ids)
            self._calls[shape] = calls
        return self._calls[shape]

    @contextlib.contextmanager
    def passing(self, see: Callable[[Call], None] = lambda call: None) -> Iterator[None]:
        """Layers hand on the hidden states that they are given, and compute nothing, while the block runs."""

        def hand_on(index: int, *args: Any, **kwargs: Any) -> Any:
            kept = {key: value for key, value in kwargs.items() if key != "hidden_states"}
            see((args[1:], kept))
            hidden = args[0] if args else kwargs["hidden_states"]
            more = self._more[index]
            return hidden if more is None else (hidden, *[None] * more)

        before = [vars(layer.module).get("forward") for layer in self.layers]
        for index, layer in enumerate(self.layers):
            layer.module.forward = functools.partial(hand_on, index)
        try:
            yield
        finally:
            for layer, own in zip(self.layers, before, strict=True):
                del layer.module.forward
                if own is not None:
                    layer.module.forward = own

    @torch.no_grad()
    def _check(self) -> None:
        """See one forward pass: each layer gets what the last one made, and makes the same when called alone.

        One pass, and each layer's two calls one after the other, since weights may have a long way to come.
        """
        last: list[torch.Tensor] = []
        wrong: list[str] = []
        calling = False

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]
            if not calling and last and not _close(hidden, last[0]):
                wrong.append("between")

        def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
            nonlocal calling
            if calling:
                return
            kept = {key: value for key, value in kwargs.items() if key != "hidden_states"}
            hidden = args[0] if args else kwargs["hidden_states"]
            self._more.append(len(out) - 1 if isinstance(out, tuple) else None)
            calling = True
            if not _close(_states(module(hidden, *args[1:], **kept)), _states(out)):
                wrong.append("alone")
            calling = False
            last[:] = [_states(out)]

        modules = [layer.module for layer in self.layers]
        handles = [module.register_forward_pre_hook(before, with_kwargs=True) for module in modules]
        handles += [module.register_forward_hook(after, with_kwargs=True) for module in modules]
        try:
            rows = self.batches[0][:1]
            forward(self.model.base_model, self.ids(rows)[:, :_CHECKED_TOKENS])
        finally:
            for handle in handles:
                handle.remove()
        if wrong or len(self._more) != len(self.layers):
            raise UnsupportedModelError(
                f"{type(self.model).__name__} does more between its layers than hand on hidden states, "
                "so it cannot be walked layer by layer."
            )


def _states(out: Any) -> torch.Tensor:
    hidden: torch.Tensor = out[0] if isinstance(out, tuple) else out
    return hidden


def _close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((found - expected).abs().max() <= _AGREES * expected.abs().max())


def layers_of(model: nn.Module) -> list[Layer]:
    """The layers that hold a feed-forward site, in order.

    Raises:
        UnsupportedModelError: no feed-forward network is recognised.
    """
    end = "." + family_of_model(model).down
    names = [(site, site.name.removesuffix(end)) for site in find_sites(model)]
    return [Layer(site, name, model.get_submodule(name)) for site, name in names]


def _batches(lengths: np.ndarray, batch: int) -> list[np.ndarray]:
    return list(_runs(np.argsort(lengths, kind="stable"), lengths, batch))


def _runs(order: np.ndarray, lengths: Sequence[int] | np.ndarray, batch: int) -> Iterator[np.ndarray]:
    """``order`` in runs of up to ``batch`` blocks of one length."""
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and stop - start < batch and lengths[order[stop]] == lengths[order[start]]:
            stop += 1
        yield order[start:stop]
        start = stop
