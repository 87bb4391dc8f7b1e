"""How a pass goes through a model within a bound of memory: whole, as checkpoints, or streamed."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from scarprune.errors import MemoryBudgetError
from scarprune.models.context import vocabulary_size
from scarprune.models.find import find_sites
from scarprune.models.forward import device_of
from scarprune.models.head import Head, find_head
from scarprune.models.site import Site
from scarprune.models.streamed import streamed_of
from scarprune.profile.compiling import even_batch
from scarprune.profile.estimate import (
    MOST_TOKENS,
    SHARE_OF_FREE,
    TOKENS_AT_ONCE,
    Memory,
    estimate_layer,
    estimate_memory,
    expected_seconds,
)
from scarprune.profile.layerwise import Layerwise
from scarprune.profile.watch import Looks
from scarprune.runtime.memory import available_bytes, gib, is_out_of_memory
from scarprune.runtime.progress import duration, remark
from scarprune.runtime.ranks import Ranks
from scarprune.text.blocks import Blocks

Batch = int | Literal["auto"]
Kind = Literal["whole", "checkpointed", "streamed"]
# What all parts of a copy do, where one of them cannot hold its part whole.
_LESS: dict[Kind, Kind] = {"whole": "checkpointed", "checkpointed": "checkpointed", "streamed": "streamed"}

# Of a bound that was asked for: an estimate is within a tenth, and a GPU's allocator wastes a little.
_SHARE_OF_BOUND = 0.92
# What a batch costs besides its tokens, in tokens: starting kernels, and reading the weights of a layer.
_TOKENS_OF_A_BATCH = {"cpu": 8}
_TOKENS_OF_A_BATCH_GPU = 256
_COST_OF_CHECKPOINTS = 1.34  # forward twice, but for the down projections: measured in operations
# Tokens that a layer should compute each time it comes: at 400 TFLOP/s and 10 GB/s, 6 operations a weight and
# token take as long as two ways of 2 bytes a weight at 27,000.
_TOKENS_A_COMING = 32768
_MOST_STREAMED_TOKENS = {"cpu": 1024}
_MOST_STREAMED_TOKENS_GPU = 8192
_CHUNKS_OF_A_BOUND = 80  # a chunk of logits and what is made of it is four times this part of a bound
_SHARE_OF_HOST = 0.5  # of free CPU memory, for what waits there


@dataclass(frozen=True, slots=True)
class Way:
    """What was chosen.

    Attributes:
        kind: ``whole``: layers keep what their backward pass needs; ``checkpointed``: their input alone;
            ``streamed``: the layers themselves come one at a time, and their inputs wait.
        batch: blocks computed at once.
        peak: the most bytes in use at once on the device.
        together: blocks that a layer takes each time it comes, batch by batch; 0 where all layers are there.
        aside: bytes of layers' inputs in CPU memory.
    """

    kind: Kind
    batch: int
    peak: int
    together: int = 0
    aside: int = 0


def find_way(
    model: Any,
    sites: Sequence[Site],
    blocks: Blocks,
    *,
    totals: int,
    compiled: bool,
    batch: Batch,
    bound: int | None,
    labels: int,
    ranks: Ranks,
    looks: Looks,
) -> tuple[Head, Way, Layerwise | None]:
    """The head of ``model``, the way through it within ``bound``, and where it is streamed its layers.

    What is seen of the sites meanwhile is added to ``looks``.

    Raises:
        MemoryBudgetError: not even one block, or the batch that was asked for, fits.
        UnsupportedModelError: streamed layers that cannot be called one by one.
    """
    streamed, device, vocabulary = streamed_of(model), device_of(model), vocabulary_size(model)
    layerwise = None if streamed is None else Layerwise(model, blocks, streamed)
    head = find_head(model) if layerwise is None else layerwise.head
    head = replace(head, chunk_bytes=None if bound is None else bound // _CHUNKS_OF_A_BOUND)
    state_bytes = sites[0].hidden * model.dtype.itemsize
    lengths = blocks.lengths[slice(*ranks.share(blocks.lengths))]
    if layerwise is None:
        block = blocks.ids[0, : blocks.lengths[0]]
        frugal = bound is not None
        memory = estimate_memory(
            model, head, sites, device, vocabulary, totals, compiled, block, looks, frugal
        )
        way = choose_way(memory, sites, state_bytes, lengths, batch, bound, device)
    else:
        layerwise.head = head
        rests = totals if device.type == "cpu" else totals // len(sites)
        memory = estimate_layer(model, layerwise, sites, vocabulary, rests, compiled)
        way = choose_streamed(memory, layerwise, state_bytes, lengths, labels, batch, bound)
    agreed = int(ranks.least_of_copy(way.batch))
    if compiled and batch == "auto":  # other shapes run eagerly
        agreed = even_batch(agreed, len(lengths))
    kind: Kind = way.kind if ranks.least_of_copy(way.kind == "whole") else _LESS[way.kind]
    return head, replace(way, batch=agreed, kind=kind), layerwise


def limit_of(bound: int | None, memory: Memory, device: torch.device) -> float:
    """Bytes that may be in use: most of what was asked for, or of what is free besides what is in use."""
    if bound is None:
        return memory.resident + SHARE_OF_FREE * available_bytes(device)
    return _SHARE_OF_BOUND * bound


def choose_way(
    memory: Memory,
    sites: Sequence[Site],
    state_bytes: int,
    lengths: np.ndarray,
    batch: Batch,
    bound: int | None,
    device: torch.device,
) -> Way:
    """Whole or checkpointed, for a model that is there: what is expected to be faster at what fits.

    A batch that was asked for is taken whole where that fits. Without a bound the smallest batch is tried
    whatever the estimate says.

    Args:
        memory: estimated with all layers whole.
        sites: one a layer.
        state_bytes: of a token between two layers.
        lengths: of the blocks.
        batch: blocks at once.
        bound: bytes that may be in use, or None for what is free.
        device: where the model is.

    Raises:
        MemoryBudgetError: not even one block, or the batch that was asked for, fits the bound.
    """
    length, limit = int(lengths.max()), limit_of(bound, memory, device)
    estimates: dict[Kind, Memory] = {
        "whole": memory,
        "checkpointed": memory.checkpointed(len(sites), state_bytes),
    }
    helps = max(1, TOKENS_AT_ONCE.get(device.type, MOST_TOKENS) // length)
    fitting: dict[Kind, int] = {}
    for kind, estimate in estimates.items():
        if batch == "auto":
            fitting[kind] = min(estimate.largest_batch(length, limit), helps, len(lengths))
        else:
            fitting[kind] = batch if estimate.peak(batch, length) <= limit else 0
    able: list[Kind] = [kind for kind, blocks in fitting.items() if blocks]
    least = 1 if batch == "auto" else batch
    if not able and bound is not None:
        needed = estimates["checkpointed"].peak(least, length)
        raise _too_little(bound, needed, batch, "load_model(..., streamed=True) in Python.")
    if not able:
        return Way("checkpointed", least, estimates["checkpointed"].peak(least, length))
    fixed = _TOKENS_OF_A_BATCH.get(device.type, _TOKENS_OF_A_BATCH_GPU)
    cost = {"whole": 1.0, "checkpointed": _COST_OF_CHECKPOINTS}
    best = min(able, key=lambda kind: cost[kind] * (1 + fixed / (length * fitting[kind])))
    return Way(best, fitting[best], estimates[best].peak(fitting[best], length))


def choose_streamed(
    memory: Memory,
    layers: Layerwise,
    state_bytes: int,
    lengths: np.ndarray,
    kinds: int,
    batch: Batch,
    bound: int | None,
) -> Way:
    """How many blocks at once, and how many together, for a model whose layers come one at a time.

    Inputs of layers wait on the device as far as they fit, else in CPU memory; ``layers`` is told.

    Args:
        memory: estimated with one layer there.
        layers: the streamed model.
        state_bytes: of a token between two layers.
        lengths: of the blocks.
        kinds: of labels, each with a gradient of its own.
        batch: blocks at once.
        bound: bytes that may be in use, or None for what is free.

    Raises:
        MemoryBudgetError: not even one block, or the batch that was asked for, fits.
    """
    device, length = layers.walk.device, int(lengths.max())
    limit = limit_of(bound, memory, device)
    carried = (1 + kinds) * state_bytes * length  # of a block on its way: what a layer takes, what it gives
    kept = len(layers.streamed) * state_bytes * length
    host = 0.0 if device.type == "cpu" else _SHARE_OF_HOST * available_bytes(torch.device("cpu"))
    helps = max(1, _MOST_STREAMED_TOKENS.get(device.type, _MOST_STREAMED_TOKENS_GPU) // length)

    def least(blocks: int) -> float:
        return memory.peak(blocks, length) + carried * blocks + max(0.0, kept * blocks - host)

    at_once = batch if isinstance(batch, int) else min(_half(memory, length, limit), helps, len(lengths))
    if batch == "auto" and least(at_once) > limit:
        at_once = 1
    if least(at_once) > limit:
        raise _too_little(int(limit) if bound is None else bound, least(at_once), batch, "a smaller --dtype.")
    free = limit - memory.peak(at_once, length)
    together = int(min(free / carried, (free + host) / (carried + kept), max(1, _TOKENS_A_COMING // length)))
    together = max(at_once, min(together // at_once * at_once, len(lengths)))
    free -= carried * together
    layers.device_bytes = int(free) if device.type != "cpu" else 1 << 62
    of_a_layer = state_bytes * length * together
    on_device = of_a_layer * min(len(layers.streamed), int(max(0.0, free) // of_a_layer))
    peak = memory.peak(at_once, length) + carried * together + on_device
    return Way("streamed", at_once, int(peak), together, int(kept * together - on_device))


def _half(memory: Memory, length: int, limit: float) -> int:
    """Blocks whose activations take half of what is free; the rest is for what waits."""
    return max(1, memory.largest_batch(length, limit - (limit - memory.peak(0, length)) / 2))


@contextlib.contextmanager
def refused(bound: int | None, device: torch.device) -> Iterator[None]:
    """An allocator's refusal while the block runs is one sentence about ``bound``, or about what is free.

    Raises:
        MemoryBudgetError: memory ran out.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        much = "What is free" if bound is None else f"{gib(bound)} of memory"
        raise MemoryBudgetError(
            f"{much} is too little on {device}: not even a few tokens go through the model that is there.",
            hint="Use more --memory, a smaller --dtype, or load_model(..., streamed=True) in Python.",
        ) from error.with_traceback(None)


def _too_little(bound: int, least: float, batch: Batch, otherwise: str) -> MemoryBudgetError:
    what = "one block" if batch == "auto" else f"a batch of {batch} blocks"
    return MemoryBudgetError(
        f"{gib(bound)} of memory is too little: {what} needs {gib(least_bound(least))}.",
        hint=f"Use more --memory, shorter blocks (--length), or {otherwise}",
    )


def least_bound(needed: float) -> int:
    """The smallest bound, in whole 64 MiB, that ``needed`` bytes fit."""
    step = 1 << 26
    return int(-(-needed / _SHARE_OF_BOUND // step)) * step


def fits_whole(model: Any, totals: int, length: int, bound: float) -> bool:
    """Whether ``model`` would fit with one block of ``length`` and layers as checkpoints, from its shape.

    Args:
        model: whole, or an outline without values.
        totals: bytes that observers keep to the end.
        length: tokens of a block.
        bound: bytes that may be in use.
    """
    sites = find_sites(model)
    hidden, width = sites[0].hidden, max(site.width for site in sites)
    itemsize = model.dtype.itemsize
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    # What a layer of Llama's shape saves for a token, and makes in the backward pass: rather too much.
    numbers = len(sites) * hidden + 12 * hidden + 5 * width
    activations = length * (itemsize * numbers + (4 * itemsize + 24) * width)
    logits = 4 * 4 * 64 * vocabulary_size(model)
    return bool(weights + totals + logits + activations <= _SHARE_OF_BOUND * bound)


def say_before(
    what: str,
    model: nn.Module,
    blocks: Blocks,
    way: Way,
    layerwise: Layerwise | None,
    tokens_left: float,
    compiled: bool,
    ranks: Ranks,
) -> None:
    """One remark: what will be done and how, and what it is expected to take."""
    device, tokens = device_of(model), int(blocks.lengths.sum())
    what = f"{what} {len(blocks)} blocks, {tokens:,} tokens, {way.batch} blocks at once"
    if ranks.count > 1:
        parts = f", a copy of the model in {ranks.parts} of them" if ranks.parts > 1 else ""
        what += f" in each of {ranks.copies} shares, {ranks.count} processes{parts}"
    what += ", compiled" if compiled else ""
    coming = 0.0
    if layerwise is not None:
        what += f", layers streamed from {layerwise.streamed.shelf.kind} for {way.together} blocks together"
        coming = 2 * layerwise.seconds * tokens_left / tokens * len(blocks) / way.together
    elif way.kind == "checkpointed":
        what += ", activations computed twice"
    if device.type == "cpu":
        computing = expected_seconds(model, tokens_left * (1 if way.kind == "whole" else 1.5))
        seconds = duration(max(computing, coming))
        remark(f"{what}: about {seconds} and {gib(way.peak)} of memory on this CPU.")
    else:
        aside = f" and {gib(way.aside)} of the CPU's" if way.aside else ""
        remark(f"{what}: about {gib(way.peak)} of memory on {device}{aside}.")
