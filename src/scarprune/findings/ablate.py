"""Ablations: what the loss is with channels removed, many removals in one batch that grows at the site.

One block [1, T] goes in. At the first site that is touched its u [1, T, m] becomes [A, T, m], one row a
removal: all below runs once, the residual stream broadcasts, and all above runs for A removals at once. The
least that the work can cost is therefore the forward operations above the site, A times.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from scarprune.errors import ArgumentError, NumericsError
from scarprune.evaluate.perplexity import token_nats, tokens_at_once
from scarprune.models.context import vocabulary_size
from scarprune.models.find import find_sites
from scarprune.models.head import find_head
from scarprune.runtime.memory import is_out_of_memory, release_cached
from scarprune.runtime.progress import track
from scarprune.text.blocks import Blocks

_TRIAL_TOKENS = 24
_SAME = 1e-3  # nats per token that rounding may make between two ways of running one removal


@dataclass(frozen=True, eq=False)
class Removal:
    """Channels of one or more sites, taken out together.

    Attributes:
        channels: site name -> int64 indices.
        means: site name -> float64 [m] that removed channels are set to; None sets them to zero.
        first_position: positions before it are left alone.
    """

    channels: Mapping[str, np.ndarray]
    means: Mapping[str, np.ndarray] | None = None
    first_position: int = 0


class _NotGrown(Exception):
    """The input of a site has no axis along which the batch could grow."""


@dataclass
class _Masks:
    """What one batch of removals does at one site."""

    keep: torch.Tensor  # [A, 1, m], 1 or 0, in the model's dtype
    fill: torch.Tensor | None  # [A, 1, m], what stands where keep is 0
    first_position: int
    grows: bool

    def apply(self, u: torch.Tensor, tokens: int) -> torch.Tensor:
        rows = len(self.keep)
        flat = u.dim() == 2
        if flat and self.grows:
            raise _NotGrown
        u3 = u.reshape(-1, tokens, u.shape[-1])
        if len(u3) not in (1, rows):
            raise _NotGrown
        keep = self.keep.to(u)
        changed = u3 * keep if self.fill is None else torch.addcmul(self.fill.to(u), u3, keep)
        if self.first_position:
            head = u3[:, : self.first_position].expand(rows, -1, -1)
            changed = torch.cat([head, changed[:, self.first_position :]], dim=1)
        return changed.flatten(0, 1) if flat else changed


@dataclass
class _Batch:
    """Removals run at once, and their masks by site, made once for all blocks."""

    removals: Sequence[Removal]
    masks: Mapping[str, _Masks]


@dataclass
class Ablator:
    """Runs removals on one model and one text.

    Attributes:
        model: left as it was found.
        blocks: the probe text.
        grows: whether the batch grows at the site; False where the architecture does not let it, found out
            at the start by a trial. The ids are then repeated, which costs the whole model A times.
    """

    model: Any
    blocks: Blocks
    grows: bool = field(init=False)

    def __post_init__(self) -> None:
        self.sites = find_sites(self.model)
        self._order = {site.name: index for index, site in enumerate(self.sites)}
        self._head = find_head(self.model)
        self._vocabulary = vocabulary_size(self.model)
        self._device = next(p.device for p in self.model.parameters() if p.device.type != "meta")
        self._tokens = tokens_at_once(self.model, self._device)
        self.grows = self._trial()

    def losses(self, removals: Sequence[Removal], what: str = "Removing") -> np.ndarray:
        """Summed loss of each block under each removal: float64 [removals, blocks], nats.

        Raises:
            ArgumentError: a removal of an unknown site or channel.
            NumericsError: a loss is not finite.
        """
        self._check(removals)
        nats = np.empty((len(removals), len(self.blocks)))
        batches = list(self._rows(removals))
        with self._quietly(), track(what, len(batches) * int(self.blocks.lengths.sum())) as advance:
            for rows in batches:
                batch = self._batch([removals[row] for row in rows], self.grows)
                found = []
                for block, length in enumerate(self.blocks.lengths):
                    ids = torch.from_numpy(self.blocks.ids[block : block + 1, :length])
                    found.append(self._run(ids, batch))
                    advance(int(length))
                # One wait for the device a batch, not one a block.
                nats[rows] = torch.stack(found, dim=1).cpu().numpy()
        if not np.isfinite(nats).all():
            raise NumericsError("A loss with channels removed is not finite.", hint="Try --dtype float32.")
        return nats

    def dense(self) -> np.ndarray:
        """Summed loss of each block of the whole model: float64 [blocks], nats."""
        nothing = Removal({self.sites[0].name: np.empty(0, dtype=np.int64)})
        dense: np.ndarray = self.losses([nothing], "Evaluating")[0]
        return dense

    # -- one batch ---------------------------------------------------------------------------------

    def _rows(self, removals: Sequence[Removal]) -> Iterator[list[int]]:
        """Rows that share their first site and their first position, as many as a batch holds."""
        keys: dict[tuple[int, int], list[int]] = {}
        for row, removal in enumerate(removals):
            first = min((self._order[name] for name in removal.channels), default=0)
            keys.setdefault((first, removal.first_position), []).append(row)
        size = max(1, self._tokens // int(self.blocks.lengths.max()))
        for _, rows in sorted(keys.items()):
            for part in np.array_split(rows, -(-len(rows) // size)):  # of like size: a rest runs badly
                yield part.tolist()

    def _run(self, ids: torch.Tensor, batch: _Batch) -> torch.Tensor:
        """Summed losses [A] of ids [1, T]; halves the batch where memory runs out."""
        try:
            return self._forward(ids, batch, self.grows)
        except RuntimeError as error:
            if not is_out_of_memory(error) or len(batch.removals) == 1:
                raise
        release_cached(self._device)
        half = len(batch.removals) // 2
        self._tokens = max(ids.shape[1], self._tokens // 2)
        parts = (batch.removals[:half], batch.removals[half:])
        return torch.cat([self._run(ids, self._batch(part, self.grows)) for part in parts])

    def _forward(self, ids: torch.Tensor, batch: _Batch, grows: bool) -> torch.Tensor:
        rows, tokens = len(batch.removals), ids.shape[1]
        with contextlib.ExitStack() as stack, torch.no_grad():
            for name, masks in batch.masks.items():
                module = self.model.get_submodule(name)
                stack.callback(module.register_forward_pre_hook(_hook(masks, tokens)).remove)
            hidden = self._head.hidden(ids if grows else ids.expand(rows, -1))
            if len(hidden) != rows:
                hidden = hidden.expand(rows, -1, -1)
            targets = ids[:, 1:].to(hidden.device).expand(rows, -1)
            nats = token_nats(self._head, hidden[:, :-1], targets, self._vocabulary)
            exact = torch.float32 if nats.device.type == "mps" else torch.float64
            return nats.sum(dim=1, dtype=exact)

    def _batch(self, removals: Sequence[Removal], grows: bool) -> _Batch:
        touched = [s for s in self.sites if any(s.name in removal.channels for removal in removals)]
        return _Batch(removals, {s.name: self._masks(s.name, s.width, removals, grows) for s in touched})

    def _masks(self, name: str, width: int, removals: Sequence[Removal], grows: bool) -> _Masks:
        keep = torch.ones(len(removals), 1, width)
        fill = None
        for row, removal in enumerate(removals):
            gone = torch.from_numpy(np.asarray(removal.channels.get(name, ()), dtype=np.int64))
            keep[row, 0, gone] = 0.0
            if removal.means is not None and len(gone):
                fill = torch.zeros_like(keep) if fill is None else fill
                fill[row, 0, gone] = torch.from_numpy(removal.means[name])[gone].to(fill)
        device, dtype = self._device, self.model.dtype
        fill = None if fill is None else fill.to(device, dtype)
        return _Masks(keep.to(device, dtype), fill, removals[0].first_position, grows)

    # -- checks ------------------------------------------------------------------------------------

    def _trial(self) -> bool:
        """Whether removals in a growing batch give what they give with the ids repeated."""
        length = min(_TRIAL_TOKENS, int(self.blocks.lengths[0]))
        ids = torch.from_numpy(self.blocks.ids[:1, :length])
        site = self.sites[0]
        some = [
            Removal({site.name: np.arange(stop)}) for stop in (0, max(1, site.width // 4), site.width // 2)
        ]
        with self._quietly():
            expected = self._forward(ids, self._batch(some, False), grows=False)
            try:
                found = self._forward(ids, self._batch(some, True), grows=True)
            except (_NotGrown, RuntimeError, ValueError):
                return False
        return bool((found - expected).abs().max() <= _SAME * length * max(1.0, self._rounding()))

    def _rounding(self) -> float:
        eps = float(torch.finfo(self.model.dtype).eps)
        return float(np.sqrt(eps / torch.finfo(torch.float32).eps))

    def _check(self, removals: Sequence[Removal]) -> None:
        widths = {site.name: site.width for site in self.sites}
        for removal in removals:
            for name, channels in removal.channels.items():
                if name not in widths:
                    raise ArgumentError(f"The model has no site {name!r}.")
                if len(channels) and not 0 <= int(np.min(channels)) <= int(np.max(channels)) < widths[name]:
                    raise ArgumentError(
                        f"A channel to remove lies outside 0 to {widths[name] - 1} of {name}."
                    )

    @contextlib.contextmanager
    def _quietly(self) -> Iterator[None]:
        """Without dropout while the block runs."""
        training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True


def _hook(masks: _Masks, tokens: int) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    def hook(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (masks.apply(inputs[0], tokens), *inputs[1:])

    return hook
