"""Perplexity over blocks, with its standard error, and the excess of one model over another."""

import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from scarprune.errors import ArgumentError, NumericsError, TextError
from scarprune.evaluate.batches import Batches, BatchSize, block_sums, evaluating
from scarprune.evaluate.compiling import compiling
from scarprune.evaluate.nats import token_nats
from scarprune.models.context import context_length, vocabulary_size
from scarprune.models.head import Head, find_head
from scarprune.profile.compiling import Compiled
from scarprune.runtime.ranks import ALONE, Ranks
from scarprune.stats.summary import standard_error
from scarprune.text.blocks import Blocks
from scarprune.text.fit import check_fits

_LOG_OF_LARGEST = math.log(sys.float_info.max)


@dataclass(frozen=True, eq=False)
class Perplexity:
    """The losses of one model on blocks.

    Attributes:
        block_nats: float64 [n], summed loss of each block's targets.
        block_targets: int64 [n], predicted tokens of each block.
        bytes: UTF-8 bytes of all targets' text, or None where unknown.
        protocol: how the blocks were cut.
        text: fingerprint of the blocks.
    """

    block_nats: np.ndarray
    block_targets: np.ndarray
    bytes: int | None
    protocol: str
    text: str

    @property
    def tokens(self) -> int:
        """Predicted tokens."""
        return int(self.block_targets.sum())

    @property
    def nats_per_token(self) -> float:
        """Mean loss over all targets."""
        return math.fsum(self.block_nats) / self.tokens

    @property
    def perplexity(self) -> float:
        """exp(nats_per_token); infinity where that is beyond float64."""
        return math.exp(self.nats_per_token) if self.nats_per_token < _LOG_OF_LARGEST else math.inf

    @property
    def standard_error(self) -> float | None:
        """Of nats_per_token: deviation (n - 1) of the blocks' means over root n; None for one block."""
        return standard_error(self.block_nats / self.block_targets)

    @property
    def bits_per_byte(self) -> float | None:
        """All bits over all bytes of the targets' text; None where the bytes are unknown."""
        return math.fsum(self.block_nats) / math.log(2) / self.bytes if self.bytes else None

    def as_json(self) -> dict[str, Any]:
        """The keys of an evaluation; ``perplexity`` is null where it is beyond float64."""
        return {
            "perplexity": self.perplexity if math.isfinite(self.perplexity) else None,
            "nats_per_token": self.nats_per_token,
            "standard_error": self.standard_error,
            "tokens": self.tokens,
            "bits_per_byte": self.bits_per_byte,
            "blocks": len(self.block_nats),
            "protocol": self.protocol,
        }


def excess(dense: Perplexity, cut: Perplexity) -> tuple[float, float | None]:
    """ln(ppl cut / ppl dense) in nats and the standard error of the blocks' paired differences.

    Raises:
        ArgumentError: the two were measured on different blocks.
    """
    if dense.text != cut.text:
        raise ArgumentError("The excess compares two models on the same blocks; these are different ones.")
    paired = (cut.block_nats - dense.block_nats) / dense.block_targets
    return cut.nats_per_token - dense.nats_per_token, standard_error(paired)


def perplexity(
    model: nn.Module,
    blocks: Blocks,
    *,
    batch: BatchSize = "auto",
    compiled: Compiled = "auto",
    ranks: Ranks = ALONE,
) -> Perplexity:
    """The loss of ``model`` on every target of ``blocks``: logits and token losses float32, sums float64.

    Args:
        model: a causal language model on its device or devices, left as it was found.
        blocks: from ``read_blocks``; blocks of one length share a batch, so that nothing is padded.
        batch: blocks at once; ``auto`` takes what fits and halves where memory runs out.
        compiled: whether torch.compile runs the layers and, on CUDA, fuses the loss; ``auto`` where a GPU
            gains more from it than it costs.
        ranks: from ``find_ranks``, the processes that take part: each calls this with all blocks, reads its
            share of them, and is given the whole result.

    Raises:
        TextError: ids outside the vocabulary, blocks longer than the context or of one token.
        NumericsError: a loss is not finite.
        MemoryBudgetError: the batch does not fit.
    """
    check_text(model, blocks)
    start, stop = ranks.share(blocks.lengths)
    mine = blocks.take(np.arange(start, stop))
    batches = Batches(model, mine, batch)
    vocabulary = vocabulary_size(model)
    with evaluating(model):
        head = find_head(model)
        with compiling(model, mine.lengths, 1, compiled) as attempt:

            def measure(ids: torch.Tensor, whole: bool) -> torch.Tensor:
                return attempt(lambda: _sums(head, ids, vocabulary, attempt.fuses), ids.shape[1], whole=whole)

            nats = np.zeros(len(blocks))
            nats[start:stop] = batches.sums(measure, "Evaluating")
    return checked(of_blocks(blocks, ranks.total({"nats": nats}, batches.device)["nats"]))


def _sums(head: Head, ids: torch.Tensor, vocabulary: int, fused: bool) -> torch.Tensor:
    """Summed losses of ``ids`` [B, T]: float64 [B]."""
    hidden = head.hidden(ids)[:, :-1]
    return block_sums(token_nats(head, hidden, ids[:, 1:], vocabulary, fused=fused))


def check_text(model: Any, blocks: Blocks) -> None:
    """Raise TextError unless ``model`` can predict something of every block."""
    if not len(blocks) or int(blocks.lengths.min()) < 2:
        raise TextError("There is nothing to predict: a block needs at least two tokens.")
    check_fits(blocks, vocabulary_size(model), context_length(model.config))


def of_blocks(blocks: Blocks, nats: np.ndarray) -> Perplexity:
    """``nats`` [n], the summed loss of each block, with what is known of the blocks."""
    return Perplexity(
        block_nats=nats,
        block_targets=blocks.lengths - 1,
        bytes=None if blocks.bytes is None else int(blocks.bytes.sum()),
        protocol=blocks.protocol,
        text=blocks.fingerprint,
    )


def checked(result: Perplexity) -> Perplexity:
    """``result``.

    Raises:
        NumericsError: a loss is not finite.
    """
    lost = np.flatnonzero(~np.isfinite(result.block_nats))
    if len(lost):
        nats = result.block_nats[lost[0]]
        raise NumericsError(f"The loss of block {lost[0]} is {nats}.", hint="Try --dtype float32.")
    return result
