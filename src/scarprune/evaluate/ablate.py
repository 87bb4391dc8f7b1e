"""What the loss is with channels removed: many removals in one pass over the text.

A batch of blocks goes up the layers once. At the first layer that a removal touches, its rows branch off:
many removals of one block inside that layer, at u [1, T, m], which becomes [A, T, m], so that the least the
work can cost is the forward operations above the site, A times; a few removals of several blocks at that
layer's input.
"""

import functools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from scarprune.errors import NumericsError
from scarprune.evaluate.batches import Batches, BatchSize, block_sums, evaluating
from scarprune.evaluate.compiling import Attempt, compiling
from scarprune.evaluate.nats import token_nats
from scarprune.evaluate.perplexity import check_text
from scarprune.evaluate.removal import Removal, Together, check_removals
from scarprune.evaluate.restart import Prefix
from scarprune.models.context import vocabulary_size
from scarprune.models.find import find_sites
from scarprune.models.forward import input_device
from scarprune.models.head import find_head
from scarprune.models.layers import find_layers
from scarprune.profile.compiling import Compiled
from scarprune.text.blocks import Blocks

_TRIAL_TOKENS = 24
_SAME = 1e-3  # nats per token that rounding may make between two ways of running one removal
_FULL_ENOUGH = 0.5  # of the rows that a device takes: fewer run slower than a layer more of full batches
_SIZES = 4  # different numbers of rows in a batch of compiled layers, each a compilation

Branch = Literal["site", "layer", "ids"]


class Ablator:
    """Runs removals on one model and one text.

    Attributes:
        model: left as it was found.
        blocks: the probe text.
        sites: of the model.
        branch: where removals can branch off in this architecture, found out at the start by a trial: at
            the first ``site`` they touch, at its ``layer``'s input, or at the ``ids``, which are then
            repeated and cost the whole model for each removal.
    """

    def __init__(
        self, model: Any, blocks: Blocks, *, batch: BatchSize = "auto", compiled: Compiled = "auto"
    ) -> None:
        """Try out what the architecture allows; ``batch`` and ``compiled`` are those of ``perplexity``.

        Raises:
            TextError: ids outside the vocabulary, blocks longer than the context or of one token.
        """
        self.model, self.blocks, self.compiled = model, blocks, compiled
        check_text(model, blocks)
        self.sites = find_sites(model)
        self.batches = Batches(model, blocks, batch)
        self._layers = find_layers(model)
        self._layer_of = {site.name: self._find_layer(site.name) for site in self.sites}
        self._vocabulary = vocabulary_size(model)
        self._tuples = False
        with evaluating(model):
            self._head = find_head(model)
            self.branch: Branch = self._trial()

    def losses(self, removals: Sequence[Removal], what: str = "Removing") -> np.ndarray:
        """Summed loss of each block under each removal: float64 [removals, blocks], nats.

        Raises:
            ArgumentError: a removal of an unknown site or channel.
            NumericsError: a loss is not finite.
        """
        nats = self.any_losses(removals, what)
        if not np.isfinite(nats).all():
            raise NumericsError("A loss with channels removed is not finite.", hint="Try --dtype float32.")
        return nats

    def any_losses(self, removals: Sequence[Removal], what: str = "Removing") -> np.ndarray:
        """``losses``, finite or not. Removals that do the same run once."""
        check_removals(self.sites, removals)
        if not removals:
            return np.empty((0, len(self.blocks)))
        places: dict[Any, int] = {}
        same = [places.setdefault(removal.key, len(places)) for removal in removals]
        distinct = list(dict(zip(same, removals, strict=True)).values())
        with (
            evaluating(self.model),
            compiling(self.model, self.blocks.lengths, self._passes(distinct), self.compiled) as attempt,
        ):
            run = _Run(self, distinct, attempt)
            found = self.batches.sums(run, what, times=len(distinct))
        nats = np.empty_like(found)
        nats[run.order] = found
        every: np.ndarray = nats[same]
        return every

    def dense(self) -> np.ndarray:
        """Summed loss of each block of the whole model: float64 [blocks], nats."""
        nothing = Removal({self.sites[0].name: np.empty(0, dtype=np.int64)})
        dense: np.ndarray = self.losses([nothing], "Evaluating")[0]
        return dense

    def layer_of(self, removal: Removal) -> int:
        """The first layer that ``removal`` touches; 0 where it touches none."""
        return min((self._layer_of[name] for name, gone in removal.channels.items() if len(gone)), default=0)

    def _find_layer(self, name: str) -> int:
        module = self.model.get_submodule(name)
        holds = (any(module is part for part in layer.modules()) for layer in self._layers)
        return next((index for index, found in enumerate(holds) if found), 0)

    def _passes(self, removals: Sequence[Removal]) -> float:
        """How many forward passes of the whole model those above ``removals`` are worth, by layers."""
        layers = len(self._layers) or 1
        return sum(1 - self.layer_of(removal) / layers for removal in removals)

    # -- one batch ---------------------------------------------------------------------------------

    def prefix(self, ids: torch.Tensor) -> Prefix:
        """The way up the layers for ``ids`` [B, T]."""
        return Prefix(self._head, self._layers, ids, tuples=self._tuples)

    def forward(
        self,
        together: Together,
        ids: torch.Tensor,
        below: torch.Tensor | None,
        prefix: Prefix,
        *,
        branch: Branch,
        fused: bool = False,
    ) -> torch.Tensor:
        """Summed losses [A, B] of ``ids`` [B, T], with ``below`` [B, T, D] into the first layer touched."""
        rows, (blocks, tokens) = together.size, ids.shape
        with together.applied(self.model, blocks, tokens):
            if below is None or branch == "ids":
                hidden = self._head.hidden(ids.repeat(rows, 1))
            else:
                inside = branch == "site" and blocks == 1
                # Without padding, one block's positions and causal mask are those of all.
                hidden = prefix.finish(ids[:1], below if inside else below.repeat(rows, 1, 1))
        wanted = len(together.removals) * blocks
        targets = ids[:, 1:].repeat(len(together.removals), 1)
        nats = token_nats(self._head, hidden[:wanted, :-1], targets, self._vocabulary, fused=fused)
        return block_sums(nats).view(-1, blocks)

    # -- what the architecture allows ---------------------------------------------------------------

    def _trial(self) -> Branch:
        """The lowest branch whose losses are those with the ids repeated, with removals at both ends."""
        length = min(_TRIAL_TOKENS, int(self.blocks.lengths.min()))
        block = torch.from_numpy(self.blocks.ids[:1, :length])
        ids = torch.cat([block, block.flip(1)]).to(input_device(self.model))
        handle = self._layers[0].register_forward_hook(self._see) if self._layers else None
        try:
            expected = self._tried("ids", ids)
        finally:
            if handle is not None:
                handle.remove()
        allowed = _SAME * length * self._rounding()
        reached: Branch = "ids"
        tries: tuple[tuple[Branch, list[torch.Tensor]], ...] = (
            ("layer", [ids]),
            ("site", [ids[:1], ids[1:]]),
        )
        for branch, parts in tries:
            try:
                found = torch.cat([self._tried(branch, part) for part in parts], dim=1)
            except (RuntimeError, ValueError, LookupError):  # what architectures say to other shapes
                return reached
            if found.shape != expected.shape or not (found - expected).abs().max() <= allowed:
                return reached
            reached = branch
        return reached

    def _see(self, module: Any, inputs: Any, output: Any) -> None:
        self._tuples = isinstance(output, tuple)

    def _tried(self, branch: Branch, ids: torch.Tensor) -> torch.Tensor:
        """Losses of some removals at the first and at the last site: [A, B]."""
        found = []
        prefix = self.prefix(ids)
        for site in (self.sites[0], self.sites[-1]):
            some = [Removal({site.name: np.arange(n)}) for n in (1, max(1, site.width // 4), site.width // 2)]
            together = Together(self.sites, some, len(some), self.batches.device)
            below = None if branch == "ids" else prefix.before(self.layer_of(some[0]))
            found.append(self.forward(together, ids, below, prefix, branch=branch))
        return torch.cat(found)

    def _rounding(self) -> float:
        eps = float(torch.finfo(self.model.dtype).eps)
        return max(1.0, float(np.sqrt(eps / torch.finfo(torch.float32).eps)))


class _Run:
    """The removals of one call, grouped by where they branch off, and what they do to one batch of blocks.

    Attributes:
        order: which removal each row of a result is of.
    """

    def __init__(self, ablator: Ablator, removals: Sequence[Removal], attempt: Attempt) -> None:
        groups: dict[tuple[int, int], list[int]] = {}
        for row, removal in enumerate(removals):
            groups.setdefault((ablator.layer_of(removal), removal.first_position), []).append(row)
        self._groups = [
            (layer, [removals[row] for row in rows]) for (layer, _), rows in sorted(groups.items())
        ]
        self.order = [row for _, rows in sorted(groups.items()) for row in rows]
        self._ablator, self._attempt = ablator, attempt
        self._together: dict[tuple[int, int], list[Together]] = {}

    def __call__(self, ids: torch.Tensor, whole: bool) -> torch.Tensor:
        """Summed losses [A, B] of ``ids`` [B, T]."""
        run, branch, length = self._ablator, self._ablator.branch, ids.shape[1]
        prefix, found = run.prefix(ids), []
        for group, (layer, removals) in enumerate(self._groups):
            below = None
            if branch != "ids":
                below = self._attempt(functools.partial(prefix.before, layer), length, whole=whole)
            rows, blocks = self._shape(len(removals), *ids.shape)
            for together in self._parts(group, rows):
                columns = []
                for start in range(0, len(ids), blocks):
                    part = slice(start, start + blocks)
                    states = None if below is None else below[part]
                    work = functools.partial(self._forward, together, ids[part], states, prefix)
                    alike = blocks == 1 or (whole and start + blocks <= len(ids))
                    columns.append(self._attempt(work, length, whole=alike))
                found.append(torch.cat(columns, dim=1))
        return torch.cat(found)

    def _forward(self, *arguments: Any) -> torch.Tensor:
        return self._ablator.forward(*arguments, branch=self._ablator.branch, fused=self._attempt.fuses)

    def _shape(self, removals: int, blocks: int, tokens: int) -> tuple[int, int]:
        """How many of ``removals`` and of ``blocks`` to run at once, so that a batch is full."""
        most = self._ablator.batches.rows(tokens)
        if self._ablator.branch == "site" and removals >= _FULL_ENOUGH * most:
            return most, 1
        wide = min(blocks, max(1, most // removals))
        wide = -(-blocks // -(-blocks // wide))
        return max(1, most // wide), wide

    def _parts(self, group: int, most: int) -> list[Together]:
        """The removals of a group, up to ``most`` at once, with their channels on the device."""
        if (group, most) not in self._together:
            removals = self._groups[group][1]
            made = []
            for rows in self._split(len(removals), most):
                some = [removals[row] for row in rows]
                size = self._padded(len(some), most)
                made.append(Together(self._ablator.sites, some, size, self._ablator.batches.device))
            self._together[group, most] = made
        return self._together[group, most]

    def _split(self, count: int, most: int) -> list[np.ndarray]:
        """Rows of each part: of like size, since a rest runs badly; full ones where each size is compiled."""
        if self._attempt.compiles:
            return [np.arange(start, min(count, start + most)) for start in range(0, count, most)]
        return np.array_split(np.arange(count), -(-count // most))

    def _padded(self, count: int, most: int) -> int:
        step = -(-most // _SIZES) if self._attempt.compiles else 1
        return min(most, -(-count // step) * step)
