"""Forward and backward one layer at a time: many batches go through a layer before the next layer comes."""

import contextlib
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from scarprune.errors import UnsupportedModelError
from scarprune.models.head import Head, find_head
from scarprune.models.streamed import Streamed
from scarprune.profile.ending import find_ending
from scarprune.profile.walk import Walk
from scarprune.text.blocks import Blocks

_FEW_TOKENS = 2
Running = Callable[[int | None], contextlib.AbstractContextManager[Any]]


class Layerwise:
    """A streamed model, and what each of its layers was given for the batches on their way.

    Each layer comes twice for all batches together, once forward and once back, where it computes again what
    it needs of its forward pass. Its inputs wait on the device up to ``device_bytes``, else in CPU memory.

    Attributes:
        walk: how the model calls its layers.
        head: from final hidden states to logits.
        streamed: what brings the layers.
        device_bytes: of inputs that may wait on the device.
        seconds: that it takes all layers to come once.
    """

    def __init__(self, model: Any, blocks: Blocks, streamed: Streamed) -> None:
        """See how the model works; every layer comes once for that.

        Raises:
            UnsupportedModelError: its layers, or what follows the last one, cannot be called one by one.
        """
        self.streamed = streamed
        began = time.perf_counter()
        self.walk = Walk(model, blocks, batch=1)
        self.seconds = time.perf_counter() - began
        with self.walk.passing():
            self.head: Head = find_head(model)
            ending = find_ending(self.walk) if self.head.chunked else None
        if ending is None:
            raise UnsupportedModelError(
                f"What {type(model).__name__} does after its layers is not known, so it cannot be streamed.",
                hint="Use more --memory, so that it is loaded whole.",
            )
        self._ending: list[nn.Module] = ending
        self.device_bytes = 0
        self._kept: list[list[torch.Tensor]] = []

    def finish(self, hidden: torch.Tensor) -> torch.Tensor:
        """What the head reads, of the hidden states [B, T, D] after the last layer."""
        for module in self._ending:
            hidden = module(hidden)
        return hidden

    def touch(self) -> None:
        """Take a few tokens through every layer as a pass does; they go nowhere."""
        states = self.walk.embedded(self.walk.batches[0])[:, :_FEW_TOKENS]
        for index in self.streamed.through():
            with torch.enable_grad():
                self.walk.step(index, states)

    @torch.no_grad()
    def forward(self, parts: Sequence[np.ndarray], running: Running) -> list[torch.Tensor]:
        """The hidden states after the last layer of each batch of blocks; every layer's inputs wait.

        ``running`` is told the number of the batch that a layer takes; None while layers are not called.
        """
        self._kept = []
        left = self.device_bytes
        with running(None):
            hidden = [self.walk.embedded(rows) for rows in parts]
            for states in hidden:
                self.walk.calls(states.shape[0], states.shape[1])
        with contextlib.closing(self.streamed.through()) as layers:
            for index in layers:
                size = sum(states.nbytes for states in hidden)
                self._kept.append([states if size <= left else _aside(states) for states in hidden])
                left -= size if size <= left else 0
                for part, states in enumerate(hidden):
                    with running(part):
                        hidden[part] = self.walk.step(index, states)
        return hidden

    def back(self, done: Callable[[], None]) -> Generator[tuple[int, int, torch.Tensor]]:
        """From the last layer to the first: its number, each batch's, and what it was given, to step anew.

        ``done`` is called after each layer.
        """
        try:
            with contextlib.closing(self.streamed.through(back=True)) as layers:
                for index in layers:
                    for part, states in enumerate(self._kept.pop()):
                        yield index, part, states.to(self.walk.device, non_blocking=True)
                    done()
        finally:
            self._kept = []


def _aside(states: torch.Tensor) -> torch.Tensor:
    """A copy in CPU memory, pinned where a GPU writes it; it is there for what the GPU does later alone."""
    if states.device.type == "cpu":
        return states
    there = torch.empty(states.shape, dtype=states.dtype, pin_memory=states.is_cuda)
    return there.copy_(states, non_blocking=True)
