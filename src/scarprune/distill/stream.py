"""Batches of a text that is cut anew in every epoch, so that no token is always at the same place."""

import numpy as np
import torch

from scarprune.errors import TextError
from scarprune.text.blocks import Blocks


class Stream:
    """A text as one row of tokens, and batches of its blocks that depend on their number alone.

    An epoch cuts the text at a random offset to pieces that do not overlap, puts what stands in front of a
    block (BOS, where the blocks have it) before each, and reads them in random order.

    Attributes:
        length: T, tokens of a block.
        pieces: blocks of an epoch.
        cuts: different cuttings, after which they come again; None is no end of them.
    """

    def __init__(self, blocks: Blocks, device: torch.device, seed: int = 0, cuts: int | None = None) -> None:
        lead = 1 if blocks.bos else 0
        texts = [row[lead:end] for row, end in zip(blocks.ids, blocks.lengths, strict=True)]
        tokens = np.concatenate(texts) if texts else np.empty(0, dtype=np.int64)
        self.length = int(blocks.lengths.max(initial=0))
        self._step = self.length - lead
        if self.length < 2 or len(tokens) < self._step:
            raise TextError("There is no whole block of two tokens or more to learn from.")
        self._slack = min(self._step - 1, len(tokens) - self._step)
        self.pieces = (len(tokens) - self._slack) // self._step
        self.cuts = cuts
        self._seed = seed
        self._tokens = torch.from_numpy(tokens).to(device)
        self._front = torch.full((1, 1), int(blocks.ids[0, 0]), device=device) if lead else None
        self._within = torch.arange(self._step, device=device)
        self._epoch, self._order, self._shift = -1, np.empty(0, dtype=np.int64), 0

    def where(self, start: int, count: int) -> np.ndarray:
        """int64 [count, 2]: cutting and piece of blocks ``start`` and on, counted over all epochs."""
        return np.array([self._place(number) for number in range(start, start + count)], dtype=np.int64)

    def take(self, places: np.ndarray) -> torch.Tensor:
        """int64 [B, T] on the device: the blocks at ``places`` [B, 2]."""
        begins = [self._shift_of(int(cut)) + int(piece) * self._step for cut, piece in places]
        starts = torch.tensor(begins)
        if self._tokens.is_cuda:
            starts = starts.pin_memory()
        index = starts.to(self._tokens.device, non_blocking=True)[:, None] + self._within
        ids = self._tokens[index]
        return ids if self._front is None else torch.cat([self._front.expand(len(ids), 1), ids], dim=1)

    def _place(self, number: int) -> tuple[int, int]:
        epoch, position = divmod(number, self.pieces)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self._seed, epoch, 1]).permutation(self.pieces)
        return (epoch if self.cuts is None else epoch % self.cuts), int(self._order[position])

    def _shift_of(self, cut: int) -> int:
        return int(np.random.default_rng([self._seed, cut, 0]).integers(self._slack + 1))
