"""A model one layer at a time: the hidden states of a whole text, carried from layer to layer.

What needs all tokens at one layer before the next begins (Gram matrices, refits) holds one layer's statistics
and one hidden state per token, instead of every layer's statistics at once.
"""

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

_AGREES = 1e-2  # of the largest hidden state: rounding alone stays below it in any dtype


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
        self._calls: dict[tuple[int, int], list[tuple[tuple[Any, ...], dict[str, Any]]]] = {}
        self._check()

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
        args, kwargs = self._calls_of(hidden.shape[0], hidden.shape[1])[index]
        out = (module or self.layers[index].module)(hidden, *args, **kwargs)
        hidden = out[0] if isinstance(out, tuple) else out
        return hidden

    # -- how the model calls its layers ------------------------------------------------------------

    def _calls_of(self, count: int, length: int) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        """What each layer is called with besides hidden states, for ``count`` blocks of ``length`` tokens."""
        if (count, length) not in self._calls:
            alike = np.flatnonzero(self.blocks.lengths == length)
            self._calls[count, length], _ = self._observe(np.resize(alike, count))
        return self._calls[count, length]

    @torch.no_grad()
    def _check(self) -> None:
        """See the calls for every shape of batch, and that they make the model's own hidden states."""
        for rows in self.batches:
            shape = (len(rows), int(self.blocks.lengths[rows[0]]))
            if shape in self._calls:
                continue
            self._calls[shape], expected = self._observe(rows)
            hidden = self.embedded(rows)
            for index in range(len(self.layers)):
                hidden = self.step(index, hidden)
            if (hidden - expected).abs().max() > _AGREES * expected.abs().max():
                raise UnsupportedModelError(
                    f"{type(self.model).__name__} does more between its layers than hand on hidden states, "
                    "so it cannot be walked layer by layer."
                )

    @torch.no_grad()
    def _observe(self, rows: np.ndarray) -> tuple[list[tuple[tuple[Any, ...], dict[str, Any]]], torch.Tensor]:
        """What each layer is called with besides hidden states, and what the last one gives."""
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        given: list[torch.Tensor] = []

        def see(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            kept = {key: value for key, value in kwargs.items() if key != "hidden_states"}
            calls.append((args[1:], kept))

        def last(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            given.append(output[0] if isinstance(output, tuple) else output)

        handles = [layer.module.register_forward_pre_hook(see, with_kwargs=True) for layer in self.layers]
        handles.append(self.layers[-1].module.register_forward_hook(last))
        try:
            forward(self.model.base_model, self.ids(rows))
        finally:
            for handle in handles:
                handle.remove()
        return calls, given[0]


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
