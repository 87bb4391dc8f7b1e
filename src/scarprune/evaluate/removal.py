"""Channels taken out, and what that does at the input of a down projection."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from scarprune.errors import ArgumentError
from scarprune.models.site import Site
from scarprune.runtime.device import to_device


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

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for removals that do the same."""
        touched = {name: _ascending(gone) for name, gone in sorted(self.channels.items()) if len(gone)}
        means = {} if self.means is None else self.means
        parts = (
            (name, gone.tobytes(), means[name][gone].tobytes() if name in means else None)
            for name, gone in touched.items()
        )
        return (*parts, self.first_position if touched else 0)


def _ascending(channels: np.ndarray) -> np.ndarray:
    """``channels`` ascending without repeats. Those of a plan are, and a look is faster than sorting."""
    return channels if (channels[1:] > channels[:-1]).all() else np.unique(channels)


def check_removals(sites: Sequence[Site], removals: Sequence[Removal]) -> None:
    """Raise ArgumentError where a removal is of an unknown site or channel."""
    widths = {site.name: site.width for site in sites}
    for removal in removals:
        for name, channels in removal.channels.items():
            if name not in widths:
                raise ArgumentError(f"The model has no site {name!r}.")
            if len(channels) and not 0 <= int(np.min(channels)) <= int(np.max(channels)) < widths[name]:
                raise ArgumentError(f"A channel to remove lies outside 0 to {widths[name] - 1} of {name}.")


@dataclass(frozen=True)
class _Gone:
    """What removals take out of one site: places in [A, m] laid flat, and what stands there instead."""

    width: int
    places: torch.Tensor
    values: torch.Tensor | None


class Together:
    """Removals of one first position that run in one batch, their channels on the device."""

    def __init__(
        self, sites: Sequence[Site], removals: Sequence[Removal], size: int, device: torch.device
    ) -> None:
        """Take ``removals`` as the first of ``size`` rows; rows beyond them leave everything in place."""
        self.removals, self.size = removals, size
        self.first_position = removals[0].first_position
        touched = [site for site in sites if any(site.name in removal.channels for removal in removals)]
        gone = [_gone(site, removals) for site in touched]
        sizes = [len(places) for places, _ in gone]
        # One copy to the device for all sites: each takes pinned memory, and that takes a driver's time.
        places = torch.split(_placed([places for places, _ in gone], np.int64, device), sizes)
        values: Sequence[torch.Tensor | None] = [None] * len(touched)
        if any(removal.means is not None for removal in removals):
            values = torch.split(_placed([values for _, values in gone], np.float32, device), sizes)
        self._gone = {
            site.name: _Gone(site.width, place, value)
            for site, place, value in zip(touched, places, values, strict=True)
        }

    @contextlib.contextmanager
    def applied(self, model: nn.Module, blocks: int, tokens: int) -> Iterator[None]:
        """Take the channels out of u [A B, T, m], or of u [B, T, m] that becomes it, while the block runs.

        Masks are inputs of what a compiler makes of the layers, so that others need no other compilation.
        """
        with contextlib.ExitStack() as stack:
            for name, gone in self._gone.items():
                hook = self._hook(gone, (blocks, tokens))
                stack.callback(model.get_submodule(name).register_forward_pre_hook(hook).remove)
            yield

    def _hook(
        self, gone: _Gone, shape: tuple[int, int]
    ) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
        rows = (self.size, 1, 1, gone.width)
        keep = torch.ones(rows, device=gone.places.device)
        keep.view(-1).index_fill_(0, gone.places, 0.0)
        fill = None
        if gone.values is not None:
            fill = torch.zeros_like(keep)
            fill.view(-1).index_copy_(0, gone.places, gone.values)
        first = self.first_position

        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            return (_changed(inputs[0], keep, fill, first, shape), *inputs[1:])

        return hook


def _gone(site: Site, removals: Sequence[Removal]) -> tuple[np.ndarray, np.ndarray]:
    """``places`` and ``values`` of ``_Gone``."""
    places, values = [], []
    for row, removal in enumerate(removals):
        channels = _ascending(np.asarray(removal.channels.get(site.name, ()), dtype=np.int64))
        places.append(row * site.width + channels)
        means = np.zeros(site.width) if removal.means is None else removal.means.get(site.name)
        values.append(np.zeros(len(channels)) if means is None or not len(channels) else means[channels])
    return np.concatenate(places), np.concatenate(values)


def _placed(arrays: Sequence[np.ndarray], dtype: type, device: torch.device) -> torch.Tensor:
    """``arrays`` one after another, on ``device``."""
    joined: np.ndarray = np.concatenate([np.empty(0, dtype), *arrays], dtype=dtype, casting="same_kind")
    return to_device(torch.from_numpy(joined), device)


def _changed(
    u: torch.Tensor, keep: torch.Tensor, fill: torch.Tensor | None, first: int, shape: tuple[int, int]
) -> torch.Tensor:
    """``u`` [A B, T, m], [B, T, m] or those laid flat to [.. T, m], under keep and fill [A, 1, 1, m]."""
    by_row = u.reshape(-1, *shape, u.shape[-1])
    keep = keep.to(u)
    changed = by_row * keep if fill is None else torch.addcmul(fill.to(u), by_row, keep)
    if first:
        before = by_row[:, :, :first].expand(len(keep), -1, -1, -1)
        changed = torch.cat([before, changed[:, :, first:]], dim=2)
    return changed.flatten(0, 2 if u.dim() == 2 else 1)
