"""How a model and a text lie on so many GPUs: resident, checkpointed, sharded or streamed, in that order."""

import math
from dataclasses import dataclass
from typing import Literal

import torch

from scarprune.errors import ArgumentError
from scarprune.profile.estimate import MOST_TOKENS, SHARE_OF_FREE, TOKENS_AT_ONCE
from scarprune.profile.loss import chunk_tokens
from scarprune.profile.size import cross_bytes, sums_bytes
from scarprune.scaling import formulas
from scarprune.scaling.machine import Machine
from scarprune.scaling.sizes import Sizes

Way = Literal["resident", "checkpointed", "streamed"]
HOST_GPUS = 8  # of one host, between which the fast link is


@dataclass(frozen=True, slots=True)
class Text:
    """What is read.

    Attributes:
        blocks: how many.
        length: tokens of each.
    """

    blocks: int
    length: int

    def __post_init__(self) -> None:
        for name, least in (("blocks", 1), ("length", 2)):
            if getattr(self, name) < least:
                raise ArgumentError(f"{name} must be at least {least}, and is {getattr(self, name)}.")

    @property
    def tokens(self) -> int:
        """Of all blocks."""
        return self.blocks * self.length


@dataclass(frozen=True, slots=True)
class Placement:
    """What each GPU does.

    Attributes:
        way: what it keeps: everything, each layer's input, or no weights but those of two layers.
        shards: GPUs that share every layer (tensor parallel).
        copies: groups of those, which share the blocks (data parallel).
        batch: blocks at once on each.
        memory_bytes: the most in use on one.
        fits: whether that is there.
    """

    way: Way
    shards: int
    copies: int
    batch: int
    memory_bytes: float
    fits: bool

    def blocks(self, text: Text) -> int:
        """Of the copy that has the most; others wait for it."""
        return math.ceil(text.blocks / self.copies)


def place(sizes: Sizes, text: Text, machine: Machine, gpus: int = 1) -> Placement:
    """The first of the ways, fewest GPUs to a layer first, in which one block fits; else streamed.

    Raises:
        ArgumentError: no GPU.
    """
    if gpus < 1:
        raise ArgumentError(f"gpus must be at least 1, and is {gpus}.")
    tried = [
        _placed(sizes, text, machine, way, shards, gpus)
        for shards in (1, 2, 4, 8)
        if gpus % shards == 0 and shards <= HOST_GPUS
        for way in ("resident", "checkpointed")
    ]
    if machine.host is not None or not any(found.fits for found in tried):
        tried.append(_placed(sizes, text, machine, "streamed", 1, gpus))
    return next((found for found in tried if found.fits), tried[-1])


def _placed(sizes: Sizes, text: Text, machine: Machine, way: Way, shards: int, gpus: int) -> Placement:
    fixed = fixed_bytes(sizes, machine, way) / shards
    kept_by = formulas.saved_bytes if way == "resident" else formulas.checkpointed_bytes
    kept = kept_by(sizes, kernels=machine.device == "cuda")
    each = text.length * (kept + formulas.transient_bytes(sizes)) / shards
    room = SHARE_OF_FREE * machine.memory_bytes - fixed
    helps = max(1, TOKENS_AT_ONCE.get(machine.device, MOST_TOKENS) // text.length)
    copies = gpus // shards
    batch = max(1, min(int(room / each), helps, math.ceil(text.blocks / copies)))
    return Placement(way, shards, copies, batch, fixed + batch * each, fits=room >= each)


def fixed_bytes(sizes: Sizes, machine: Machine, way: Way = "resident") -> float:
    """In use whatever the batch: weights, sums of both passes, logits of a chunk."""
    layer = sizes.itemsize * (sizes.cost.matrices.ffn + sizes.cost.matrices.attention) / 2 / sizes.layers
    weights = sizes.weight_bytes
    if way == "streamed":
        weights += (2 - sizes.layers) * layer
    sums = sums_bytes(sizes.widths) + cross_bytes(sizes.widths, sizes.cores())
    return weights + sums + logits_bytes(sizes, machine)


def logits_bytes(sizes: Sizes, machine: Machine) -> float:
    """Of one chunk and its gradient: four float32 copies."""
    return 4 * 4 * sizes.vocabulary * chunk_tokens(sizes.vocabulary, torch.device(machine.device))
