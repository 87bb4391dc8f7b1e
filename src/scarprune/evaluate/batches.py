"""Sums over the blocks of a text in batches that fit, without a wait for the device between them."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from scarprune.errors import ArgumentError, MemoryBudgetError
from scarprune.models.capture import plain_causal_masks
from scarprune.models.forward import device_of, input_device
from scarprune.runtime.device import to_device
from scarprune.runtime.graph import Leash
from scarprune.runtime.memory import available_bytes, is_out_of_memory, release_cached
from scarprune.runtime.progress import track
from scarprune.text.blocks import Blocks

_CPU_TOKENS, _GPU_TOKENS = 2048, 16384  # of one batch: more is not faster
_SHARE_OF_FREE = 0.5
_NUMBERS_PER_TOKEN = 64  # times the hidden size: generous for one layer's activations

BatchSize = int | Literal["auto"]
Measure = Callable[[torch.Tensor, bool], torch.Tensor]


class Batches:
    """Blocks of one text, shortest first, in batches of one length, so that nothing is padded.

    Attributes:
        device: where the model computes.
        tokens: of one batch; halved for good where memory runs out.
    """

    def __init__(self, model: nn.Module, blocks: Blocks, batch: BatchSize = "auto") -> None:
        """Take ``batch`` blocks at once; ``auto``: what fits.

        Raises:
            ArgumentError: no such batch.
        """
        if batch != "auto" and (not isinstance(batch, int) or batch < 1):
            raise ArgumentError(f"batch must be auto or a positive number of blocks, not {batch!r}.")
        self.blocks, self.batch = blocks, batch
        self.device = device_of(model)
        self._entrance = input_device(model)
        self.tokens = tokens_at_once(model, self.device)

    def rows(self, length: int) -> int:
        """How many blocks of ``length`` tokens a batch holds."""
        return max(1, self.tokens // length) if self.batch == "auto" else self.batch

    def sums(self, measure: Measure, what: str, times: float = 1) -> np.ndarray:
        """What ``measure`` gives for all blocks, by block: float64 [..., n].

        Args:
            measure: from ids [B, T], where the model takes them, and whether they are as many as in other
                batches of this length, to sums [..., B] on any device. Where memory runs out it is called
                again for some of the same blocks.
            what: for the progress bar.
            times: forward passes that one call is worth.

        Raises:
            MemoryBudgetError: not even one block fits, or not as many as were asked for.
        """
        found: list[tuple[np.ndarray, torch.Tensor]] = []
        leash = Leash(self.device)
        total = float(self.blocks.lengths.sum()) * times
        with track(what, total) as advance, plain_causal_masks():
            for length, order in _by_length(self.blocks.lengths):
                size = 0
                while len(order):
                    size = size or self._like_sized(len(order), length)
                    rows = order[:size]
                    done = self._attempt(measure, rows, length, len(rows) == size)
                    if done is None:
                        size = 0
                        continue
                    found.append((rows, done))
                    order = order[len(rows) :]
                    leash.step()
                    advance(len(rows) * length * times)
        sums = torch.cat([sums for _, sums in found], dim=-1).cpu().numpy()  # the only wait for them
        result = np.empty_like(sums, dtype=np.float64)
        result[..., np.concatenate([rows for rows, _ in found])] = sums
        return result

    def _like_sized(self, count: int, length: int) -> int:
        """Blocks of a batch such that the last of ``count`` blocks are about as many: a rest runs badly."""
        most = self.rows(length)
        return most if self.batch != "auto" else -(-count // -(-count // most))

    def _attempt(self, measure: Measure, rows: np.ndarray, length: int, whole: bool) -> torch.Tensor | None:
        """The sums of the blocks ``rows``; None where they must be tried again with fewer at once."""
        try:
            return measure(self._ids(rows, length), whole)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            failed = error.with_traceback(None)  # the frames of the failed batch hold its activations
        if self.batch != "auto" or self.rows(length) == 1:
            raise MemoryBudgetError(
                f"A batch of {len(rows)} blocks of {length} tokens does not fit.",
                hint="Use --batch auto, shorter blocks (--length) or a smaller dtype.",
            ) from failed
        self.tokens = min(self.rows(length), len(rows)) * length // 2
        release_cached(self.device)
        return None

    def _ids(self, rows: np.ndarray, length: int) -> torch.Tensor:
        ids = torch.from_numpy(self.blocks.ids[rows, :length])
        return to_device(ids, self._entrance)


def block_sums(nats: torch.Tensor) -> torch.Tensor:
    """Sums over tokens of ``nats`` [B, T]: float64 [B]; Apple's MPS has no float64, so there on the CPU."""
    return (nats.cpu() if nats.device.type == "mps" else nats).sum(dim=1, dtype=torch.float64)


def tokens_at_once(model: Any, device: torch.device) -> int:
    """Tokens of a batch of forward passes: no more than is faster, and than memory holds."""
    if device.type == "cpu":
        return _CPU_TOKENS
    weight = next(model.parameters())
    each = _NUMBERS_PER_TOKEN * model.get_input_embeddings().weight.shape[1] * weight.element_size()
    return min(_GPU_TOKENS, int(available_bytes(device) * _SHARE_OF_FREE / each))


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout and gradients while the block runs."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def _by_length(lengths: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each length, and which blocks have it."""
    order = np.argsort(lengths, kind="stable")
    for length in np.unique(lengths):
        yield int(length), order[lengths[order] == length]
