"""The hidden states of a whole text before one layer, carried on layer by layer."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from scarprune.profile.walk import Walk
from scarprune.runtime.memory import available_bytes

_SHARE_OF_FREE = 0.25  # of the device's memory; beyond it the states lie in the CPU's


class HiddenStates:
    """What one layer is given for every token of a walk's text, on the device or in pinned CPU memory.

    Attributes:
        walk: whose text and model.
        states: length of a block -> [n, T, D], the blocks of that length in the order of the walk's batches.
    """

    def __init__(self, walk: Walk) -> None:
        """Embed the whole text."""
        self.walk = walk
        self.states: dict[int, torch.Tensor] = {}
        self._slices: list[tuple[int, slice]] = []
        lengths = walk.blocks.lengths
        for rows in walk.batches:
            hidden, length = walk.embedded(rows), int(lengths[rows[0]])
            if length not in self.states:
                self.states[length] = _room(int((lengths == length).sum()), hidden)
            start = sum(part.stop - part.start for size, part in self._slices if size == length)
            self._slices.append((length, slice(start, start + len(rows))))
            self.states[length][self._slices[-1][1]] = hidden

    def __len__(self) -> int:
        """Batches."""
        return len(self._slices)

    def __getitem__(self, batch: int) -> torch.Tensor:
        """The states [B, T, D] of a batch, on the device."""
        length, rows = self._slices[batch]
        return self.states[length][rows].to(self.walk.device, non_blocking=True)

    def take(self, length: int, rows: torch.Tensor) -> torch.Tensor:
        """The states [B, T, D] of the blocks ``rows`` [B] among those of ``length``, on the device."""
        states = self.states[length]
        return states.index_select(0, rows.to(states.device)).to(self.walk.device, non_blocking=True)

    def draws(self, seed: int, batch: int) -> Iterator[tuple[int, torch.Tensor]]:
        """Batches of ``batch`` blocks of one length, all blocks again and again in new orders.

        Blocks that are left over from an order come in another one; of a length that has fewer blocks than
        ``batch`` all come at once.
        """
        sizes = {length: min(batch, len(states)) for length, states in self.states.items()}
        generator = torch.Generator().manual_seed(seed)
        while True:
            batches = []
            for length, states in self.states.items():
                order = torch.randperm(len(states), generator=generator).to(states.device, non_blocking=True)
                full = range(0, len(order) - sizes[length] + 1, sizes[length])
                batches += [(length, order[start : start + sizes[length]]) for start in full]
            for i in torch.randperm(len(batches), generator=generator).tolist():
                yield batches[i]

    @torch.no_grad()
    def advance(self, index: int, module: Callable[..., Any] | None = None) -> None:
        """Go through layer ``index``, or through ``module`` in its place."""
        for batch, (length, rows) in enumerate(self._slices):
            after = self.walk.step(index, self[batch], module)
            self.states[length][rows].copy_(after, non_blocking=True)
        if self.walk.device.type == "cuda":
            torch.cuda.synchronize(self.walk.device)  # the CPU may read what was copied to it


def _room(blocks: int, hidden: torch.Tensor) -> torch.Tensor:
    """Memory for the states of ``blocks`` blocks, where it is."""
    shape = (blocks, *hidden.shape[1:])
    size = blocks * hidden[0].numel() * hidden.element_size()
    if hidden.device.type == "cpu" or size <= _SHARE_OF_FREE * available_bytes(hidden.device):
        return torch.empty(shape, dtype=hidden.dtype, device=hidden.device)
    return torch.empty(shape, dtype=hidden.dtype, pin_memory=hidden.device.type == "cuda")
