"""Perplexity over blocks, with its standard error, and the excess of one model over another."""

import contextlib
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from scarprune.errors import ArgumentError, MemoryBudgetError, NumericsError, TextError
from scarprune.models.context import context_length, vocabulary_size
from scarprune.models.head import Head, find_head
from scarprune.profile.loss import chunk_tokens
from scarprune.runtime.memory import available_bytes, is_out_of_memory, release_cached
from scarprune.runtime.progress import track
from scarprune.stats.summary import standard_error
from scarprune.text.blocks import Blocks
from scarprune.text.fit import check_fits

_LOG_OF_LARGEST = math.log(sys.float_info.max)
_CPU_TOKENS, _GPU_TOKENS = 2048, 16384  # of one batch: more is not faster
_SHARE_OF_FREE = 0.5
_NUMBERS_PER_TOKEN = 64  # times the hidden size: generous for one layer's activations


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


def perplexity(model: nn.Module, blocks: Blocks, *, batch: int | Literal["auto"] = "auto") -> Perplexity:
    """The loss of ``model`` on every target of ``blocks``: logits and token losses float32, sums float64.

    Args:
        model: a causal language model on its device or devices, left as it was found.
        blocks: from ``read_blocks``; blocks of one length share a batch, so that nothing is padded.
        batch: blocks at once; ``auto`` takes what fits and halves where memory runs out.

    Raises:
        TextError: ids outside the vocabulary, blocks longer than the context or of one token.
        NumericsError: a loss is not finite.
        MemoryBudgetError: the batch does not fit.
    """
    if batch != "auto" and (not isinstance(batch, int) or batch < 1):
        raise ArgumentError(f"batch must be auto or a positive number of blocks, not {batch!r}.")
    if not len(blocks) or int(blocks.lengths.min()) < 2:
        raise TextError("There is nothing to predict: a block needs at least two tokens.")
    vocabulary = vocabulary_size(model)
    check_fits(blocks, vocabulary, context_length(model.config))
    with _evaluating(model), torch.no_grad():
        nats = _Walk(model, find_head(model), blocks, vocabulary, batch).block_nats()
    if not np.isfinite(nats).all():
        block = int(np.flatnonzero(~np.isfinite(nats))[0])
        raise NumericsError(f"The loss of block {block} is {nats[block]}.", hint="Try --dtype float32.")
    return Perplexity(
        block_nats=nats,
        block_targets=blocks.lengths - 1,
        bytes=None if blocks.bytes is None else int(blocks.bytes.sum()),
        protocol=blocks.protocol,
        text=blocks.fingerprint,
    )


class _Walk:
    """One walk over blocks, shortest first, in batches of one length."""

    def __init__(
        self, model: nn.Module, head: Head, blocks: Blocks, vocabulary: int, batch: int | Literal["auto"]
    ) -> None:
        self.head = head
        self.blocks = blocks
        self.vocabulary = vocabulary
        devices = (p.device for p in model.parameters() if p.device.type != "meta")
        self.device = next(devices, torch.device("cpu"))  # all weights are meta where all are offloaded
        self.batch = batch
        self.tokens = tokens_at_once(model, self.device)

    def block_nats(self) -> np.ndarray:
        """float64 [n], summed loss of each block."""
        order = np.argsort(self.blocks.lengths, kind="stable")
        nats = np.empty(len(order), dtype=np.float64)
        with track("Evaluating", int(self.blocks.lengths.sum())) as advance:
            while len(order):
                length = int(self.blocks.lengths[order[0]])
                alike = int(np.searchsorted(self.blocks.lengths[order], length, side="right"))
                rows = order[: min(alike, self._size(length))]
                done = self._attempt(rows, length)
                if done is None:
                    continue
                nats[rows] = done
                order = order[len(rows) :]
                advance(len(rows) * length)
        return nats

    def _size(self, length: int) -> int:
        return max(1, self.tokens // length) if self.batch == "auto" else self.batch

    def _attempt(self, rows: np.ndarray, length: int) -> npt.NDArray[np.float64] | None:
        """The losses of the blocks ``rows``; None where they must be tried again with fewer at once."""
        ids = torch.from_numpy(self.blocks.ids[rows, :length])
        try:
            nats: npt.NDArray[np.float64] = self._losses(ids).sum(axis=1)
            return nats
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            failed = error.with_traceback(None)  # the frames of the failed batch hold its activations
        if self.batch != "auto" or len(rows) == 1:
            raise MemoryBudgetError(
                f"A batch of {len(rows)} blocks of {length} tokens does not fit.",
                hint="Use --batch auto, shorter blocks (--length) or a smaller dtype.",
            ) from failed
        self.tokens = len(rows) * length // 2
        release_cached(self.device)
        return None

    def _losses(self, ids: torch.Tensor) -> npt.NDArray[np.float64]:
        """Token losses of ``ids`` [B, T] as float64 [B, T - 1]; of all logits only a chunk exists at once."""
        hidden = self.head.hidden(ids)[:, :-1]
        nats = token_nats(self.head, hidden, ids[:, 1:], self.vocabulary)
        losses: npt.NDArray[np.float64] = nats.cpu().numpy().astype(np.float64)
        return losses


def token_nats(head: Head, hidden: torch.Tensor, targets: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """Losses of ``targets`` [B, T] under ``hidden`` [B, T, D]: float32 [B, T], where the head is."""
    states = hidden.reshape(-1, hidden.shape[-1])
    wanted = targets.reshape(-1).to(states.device)
    step = chunk_tokens(vocabulary, states.device)
    losses = []
    for start in range(0, len(states), step):
        logits = head.logits(states[start : start + step])
        chosen = wanted[start : start + step].to(logits.device)
        if (
            logits.device.type == "cuda"
        ):  # one kernel, where the plain way reads and writes all logits six times
            losses.append(F.cross_entropy(logits, chosen, reduction="none"))
        else:
            # There F.cross_entropy adds up a large vocabulary less exactly, and to one side.
            losses.append(logits.logsumexp(-1) - logits.gather(-1, chosen[:, None]).squeeze(-1))
    return torch.cat(losses).view(targets.shape)


def tokens_at_once(model: Any, device: torch.device) -> int:
    """Tokens of a batch of forward passes: no more than is faster, and than memory holds."""
    if device.type == "cpu":
        return _CPU_TOKENS
    weight = next(model.parameters())
    each = _NUMBERS_PER_TOKEN * model.get_input_embeddings().weight.shape[1] * weight.element_size()
    return min(_GPU_TOKENS, int(available_bytes(device) * _SHARE_OF_FREE / each))


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout while the block runs."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
