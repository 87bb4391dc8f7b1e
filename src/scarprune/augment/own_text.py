"""A text in the dense model's own words: its blocks, each going on by itself from a random place.

What a cut model has to reproduce is what the dense one says, and a few hundred blocks are soon known by
heart. Distilling on the teacher's own samples is LLM-QAT's idea (arXiv 2305.17888); here they begin as the
text does, so that they stay near its subject and style.
"""

import math
import time
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from scarprune.augment.cache import roomy_cache
from scarprune.augment.placeholder import Placeholder, find_placeholder
from scarprune.errors import ArgumentError, MemoryBudgetError, UnsupportedModelError
from scarprune.models.context import context_length, vocabulary_size
from scarprune.models.family import text_config
from scarprune.models.forward import input_device
from scarprune.models.in_dtype import in_dtype
from scarprune.models.norms import fused_norms
from scarprune.runtime.memory import available_bytes, is_out_of_memory, release_cached
from scarprune.runtime.progress import track
from scarprune.text.blocks import Blocks
from scarprune.text.fit import check_fits

# Not cuDNN's, which is prepared anew for every number of tokens so far: longer than it then takes.
_ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
_SHARE_OF_FREE = 0.8  # of memory, for the keys and values of rows written at once
_LONGEST_WORD = 4  # tokens in place of a placeholder
_TOPMOST = 8192  # rows at once: more is not faster


@torch.no_grad()
def own_text(
    model: Any,
    blocks: Blocks,
    count: int,
    *,
    tokenizer: Any | None = None,
    begun_by: int | None = None,
    prompt: float = 1.0,
    temperature: float = 1.0,
    seed: int = 0,
    seconds: float | None = None,
) -> Blocks:
    """``blocks`` without placeholders, and ``count`` blocks more that go on in the model's own words.

    Each of the additional ones begins as one of ``blocks`` does, up to a random place in it, and goes on as
    the model samples. Where the text has a placeholder for rare words, as WikiText's ``<unk>``, the model
    puts a word of its own in place of each, also in ``blocks`` themselves.

    Args:
        model: the dense causal language model, whole on its device or devices.
        blocks: the text.
        count: how many blocks more.
        tokenizer: tells what the placeholder looks like; None takes the text for ordinary.
        begun_by: how many of ``blocks``, the first ones, the additional ones may begin as; None is all.
        prompt: largest share of a block that an additional one begins with; the share is drawn from 0 to it.
        temperature: of sampling.
        seed: of all draws.
        seconds: after so long no more of the additional ones are begun; ``blocks`` themselves are finished.

    Returns:
        Blocks of one length, the longest of ``blocks``: those first, then the additional ones.

    Raises:
        ArgumentError: a number that cannot be.
        TextError: blocks that do not fit the model.
        UnsupportedModelError: the architecture does not hand on its keys and values.
        MemoryBudgetError: not even one row fits.
    """
    if count < 0 or not temperature > 0 or not 0 <= prompt <= 1:
        raise ArgumentError(
            f"{count} blocks that begin with up to {prompt} of a block cannot be sampled at temperature "
            f"{temperature}."
        )
    if not len(blocks):
        return blocks
    if begun_by is not None and not 0 < begun_by <= len(blocks):
        raise ArgumentError(f"There are {len(blocks)} blocks to begin as, not {begun_by}.")
    check_fits(blocks, vocabulary_size(model), context_length(model.config))
    placeholder = find_placeholder(tokenizer, blocks, vocabulary_size(model))
    rng, beginnings = np.random.default_rng(seed), len(blocks) if begun_by is None else begun_by
    marked = [_marked(row[:end], placeholder) for row, end in zip(blocks.ids, blocks.lengths, strict=True)]
    first = marked if placeholder is not None else []
    chosen = [rng.permutation(beginnings) for _ in range(-(-count // beginnings))]
    order = np.concatenate(chosen)[:count] if chosen else np.empty(0, dtype=np.int64)
    more = [marked[i][: 1 + int(rng.random() * prompt * len(marked[i]))] for i in order]
    length = int(blocks.lengths.max())
    writer = _Writer(model, placeholder, _unsaid(tokenizer), temperature, length, seed)
    with fused_norms(writer.model):
        written = writer.rows([*first, *more], len(first), seconds)
    ids = written if placeholder is not None else np.concatenate([blocks.ids[:, :length], written])
    lengths = np.full(len(ids), length)
    if placeholder is None:
        lengths[: len(blocks)] = blocks.lengths
    return Blocks(
        ids=ids,
        lengths=lengths,
        bytes=None,
        protocol="tokens",
        source=f"{blocks.source} and {len(ids) - len(blocks)} blocks of the model's own",
        bos=blocks.bos,
        seed=blocks.seed,
    )


def _marked(row: np.ndarray, placeholder: Placeholder | None) -> np.ndarray:
    return row if placeholder is None else placeholder.marked(row)


def _unsaid(tokenizer: Any | None) -> list[int]:
    """Tokens that no text is made of: begin and end of texts and of turns in a conversation."""
    return [] if tokenizer is None else sorted(set(tokenizer.all_special_ids))


class _Writer:
    """Writes rows token by token, as many at once as memory holds."""

    def __init__(
        self,
        model: Any,
        placeholder: Placeholder | None,
        unsaid: list[int],
        temperature: float,
        length: int,
        seed: int,
    ) -> None:
        # What a GPU samples in bfloat16 is as good, and several times as much.
        device = input_device(model)
        self.model = in_dtype(model, torch.bfloat16) if device.type == "cuda" else model
        self.device, self.temperature, self.length = device, temperature, length
        self.generator = torch.Generator(self.device).manual_seed(seed)
        silent = torch.zeros(vocabulary_size(model), dtype=torch.bool)
        silent[[i for i in unsaid if i < len(silent)]] = True
        self._silent = silent.to(self.device)
        self._no_beginning = self._goes_on = torch.zeros_like(self._silent)
        self._fills = placeholder is not None
        if placeholder is not None:
            self._no_beginning = ~torch.from_numpy(placeholder.begins).to(self.device)
            self._goes_on = torch.from_numpy(placeholder.goes_on).to(self.device)

    def rows(self, drafts: list[np.ndarray], least: int = 0, seconds: float | None = None) -> np.ndarray:
        """int64 [n, T]: every draft, its placeholders filled, to the full length.

        After ``seconds`` no more are begun than ``least``, the first ones.
        """
        out = np.empty((len(drafts), self.length), dtype=np.int64)
        parts = max(1, math.ceil(len(drafts) / self._at_once()))
        at_once = math.ceil(len(drafts) / parts)
        done, began = 0, time.monotonic()
        with track("Writing text", len(drafts) * self.length) as advance:
            while done < len(drafts):
                if done >= max(least, 1) and seconds is not None and time.monotonic() - began >= seconds:
                    break
                part = drafts[done : done + at_once]
                try:
                    out[done : done + len(part)] = self._write(part)
                except RuntimeError as error:
                    if not is_out_of_memory(error):
                        raise
                    failed = error.with_traceback(None)
                    if len(part) == 1:
                        raise MemoryBudgetError(
                            f"Not even one row of {self.length} tokens can be written in memory."
                        ) from failed
                    at_once = len(part) // 2
                    release_cached(self.device)
                    continue
                done += len(part)
                advance(len(part) * self.length)
        return out[:done]

    def _write(self, drafts: list[np.ndarray]) -> np.ndarray:
        width = max(len(draft) for draft in drafts)
        padded = np.full((len(drafts), max(width, self.length) + 1), -2, dtype=np.int64)
        for row, draft in zip(padded, drafts, strict=True):
            row[: len(draft)] = draft
        source = torch.from_numpy(padded).to(self.device)
        said = [source[:, 0]]
        place = torch.ones_like(said[0])  # of the next token of the draft
        word = torch.zeros_like(said[0])  # tokens said so far in place of a placeholder
        past = roomy_cache(self.length)
        for _ in range(self.length - 1):
            with sdpa_kernel(_ATTENTION):
                output = self.model(said[-1][:, None], past_key_values=past, use_cache=True)
            if past.get_seq_length() != len(said):
                raise UnsupportedModelError(
                    f"{type(self.model).__name__} does not hand on its keys and values as transformers' own "
                    "caches do, so it cannot write text of its own."
                )
            token, place, word = self._next(output.logits[:, -1].float(), source, place, word)
            said.append(token)
        written: np.ndarray = torch.stack(said, 1).cpu().numpy()
        return written

    def _next(
        self, logits: torch.Tensor, source: torch.Tensor, place: torch.Tensor, word: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The next token of each row, and how far its draft and its word have come."""
        draft = source.gather(1, place[:, None])[:, 0]
        unsaid = self._silent
        if self._fills:  # a word begins; where one may go on as well, the model says what it likes
            unsaid = torch.where(((draft == -1) & (word == 0))[:, None], self._no_beginning, self._silent)
        free = self._sample(logits.masked_fill_(unsaid, -torch.inf))
        inside = (word > 0) & (word < _LONGEST_WORD) & self._goes_on[free]
        own = inside | (draft < 0)
        opens = ~inside & (draft == -1)
        return (
            torch.where(own, free, draft),
            place + (~inside).long(),
            torch.where(inside, word + 1, opens.long()),
        )

    def _sample(self, logits: torch.Tensor) -> torch.Tensor:
        """A token of each row's distribution: the first of exponential clocks that run at its weights."""
        weights = logits.div_(self.temperature).softmax(-1)
        clocks = torch.empty_like(weights).exponential_(generator=self.generator)
        return weights.div_(clocks).argmax(-1)

    def _at_once(self) -> int:
        """Rows whose keys and values fit."""
        config = text_config(self.model.config)
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        item = next(self.model.parameters()).element_size()
        each = 2 * config.num_hidden_layers * heads * size * self.length * item
        logits = 6 * 4 * vocabulary_size(self.model)
        room = _SHARE_OF_FREE * available_bytes(self.device)
        return max(1, min(_TOPMOST, int(room / (each + logits))))
