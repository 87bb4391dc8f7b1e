"""How many channels each site keeps, and which: one fraction for all, one by depth, or one pool over all."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scarprune.errors import PlanError
from scarprune.plan.schedule import is_schedule, losses, weights
from scarprune.stats.select import floor_share, largest, outside

POOLS = ("global", "global_raw", "global_standard")
ALLOCATIONS = ("uniform", *POOLS, "linear:S (S from -1 to 1)", "middle")
_LARGEST_AUTO = 128

Indices = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Ranked:
    """A site's channels as a plan sees them.

    Attributes:
        values: float64 [m], high = keep.
        core: int64 [k], ascending.
        protected: whether the core may not be removed.
    """

    values: np.ndarray
    core: np.ndarray
    protected: bool

    @property
    def least(self) -> int:
        """Channels that stay whatever the sparsity: the protected core, or one."""
        return len(self.core) if self.protected else 1

    def keep(self, width: int) -> np.ndarray:
        """Ascending indices of ``width`` channels: the core where protected, then the largest values."""
        if not self.protected:
            return largest(self.values, width)
        rest = outside(self.core, len(self.values))
        best = rest[largest(self.values[rest], width - len(self.core))]
        return np.sort(np.concatenate([self.core, best]))


def uniform(sites: Mapping[str, Ranked], sparsity: float, multiple_of: int) -> Indices:
    """Each site keeps w = min(m, round_up(m - floor(f * m), multiple_of)) channels.

    Raises:
        PlanError: w is below the protected core, or no channel is left.
    """
    kept = {}
    for name, site in sites.items():
        m = len(site.values)
        width = min(m, round_up(exact_width(m, sparsity), multiple_of))
        if width < site.least:
            needed = f"its protected core has {site.least}" if site.protected else "one must be left"
            raise PlanError(
                f"Sparsity {sparsity} leaves {width} of the {m} channels of {name}, but {needed}.",
                hint="Ask for a lower sparsity.",
            )
        kept[name] = site.keep(width)
    return kept


def scheduled(
    sites: Mapping[str, Ranked], sparsity: float, multiple_of: int, cap: float, allocation: str
) -> Indices:
    """Each site loses what the depth schedule gives it, all together as many as ``uniform`` would remove.

    At most floor(cap * m) of a site's m go, and no protected core. ``multiple_of`` then rounds each width up.

    Raises:
        PlanError: so many channels cannot go under the cap.
    """
    widths = [len(site.values) for site in sites.values()]
    parts = weights(allocation, len(widths))
    rooms = [
        m - _least_width(site, cap) if part > 0 else 0
        for m, site, part in zip(widths, sites.values(), parts, strict=True)
    ]
    budget = sum(floor_share(sparsity, m) for m in widths)
    _check_room(sparsity, budget, sum(widths), cap, sum(rooms))
    lost = losses(widths, rooms, parts, budget)
    return {
        name: site.keep(min(m, round_up(m - loss, multiple_of)))
        for (name, site), m, loss in zip(sites.items(), widths, lost, strict=True)
    }


def pooled(
    sites: Mapping[str, Ranked], sparsity: float, multiple_of: int, cap: float, allocation: str
) -> Indices:
    """The floor(f * M) lowest of all M channels go: at most floor(cap * m) of a site's m, no protected core.

    Channels compete by their share of their site's sum of scores (``global``), by the score itself
    (``global_raw``), or by how many standard deviations it lies above their site's mean
    (``global_standard``, FLAP's way). Of equal ones the earlier site, then the lower index, is kept.
    ``multiple_of`` then rounds each width up.

    Raises:
        PlanError: so many channels cannot go under the cap, or a score is below zero and has no share.
    """
    total = sum(len(site.values) for site in sites.values())
    budget = floor_share(sparsity, total)
    candidates = {
        name: outside(site.keep(_least_width(site, cap)), len(site.values)) for name, site in sites.items()
    }
    room = sum(map(len, candidates.values()))
    _check_room(sparsity, budget, total, cap, room)
    compared = {name: _compared(name, site.values, allocation) for name, site in sites.items()}
    pool = np.concatenate([compared[name][candidates[name]] for name in sites])
    stays = np.zeros(room, dtype=bool)
    stays[largest(pool, room - budget)] = True
    kept, start = {}, 0
    for name, site in sites.items():
        staying = int(stays[start : start + len(candidates[name])].sum())
        start += len(candidates[name])
        m = len(site.values)
        kept[name] = site.keep(min(m, round_up(m - len(candidates[name]) + staying, multiple_of)))
    return kept


def is_allocation(name: object) -> bool:
    """Whether ``name`` is one of ``ALLOCATIONS``."""
    return isinstance(name, str) and (name == "uniform" or name in POOLS or is_schedule(name))


def exact_width(m: int, sparsity: float) -> int:
    """Channels that stay of ``m`` before rounding: m - floor(f * m)."""
    return m - floor_share(sparsity, m)


def round_up(width: int, multiple_of: int) -> int:
    """The least multiple of ``multiple_of`` that is not below ``width``."""
    return -(-width // multiple_of) * multiple_of


def auto_multiple(widths: list[int], sparsity: float) -> int:
    """The largest power of two up to 128 whose rounding keeps every site's width within 1% of its m."""
    multiple = _LARGEST_AUTO
    while multiple > 1:
        kept = [(m, exact_width(m, sparsity)) for m in widths]
        if all(100 * (min(m, round_up(width, multiple)) - width) <= m for m, width in kept):
            break
        multiple //= 2
    return multiple


def _least_width(site: Ranked, cap: float) -> int:
    m = len(site.values)
    return max(site.least, m - floor_share(cap, m))


def _check_room(sparsity: float, budget: int, total: int, cap: float, room: int) -> None:
    if budget > room:
        raise PlanError(
            f"Sparsity {sparsity} would remove {budget} of {total} channels; "
            f"with cap {cap} at most {room} can go.",
            hint="Ask for a lower sparsity or raise the cap.",
        )


def _compared(name: str, values: np.ndarray, allocation: str) -> np.ndarray:
    """What the channels of a site compete by in a pool."""
    if allocation == "global_raw":
        return values
    if allocation == "global_standard":
        return _standard(values)
    if values.min() < 0:
        raise PlanError(
            f"Scores of {name} are below zero, so they have no share of a sum.",
            hint='Use allocation="global_raw" (--allocation global_raw).',
        )
    total = math.fsum(values)  # exactly rounded, so the same on every machine
    return values / total if total > 0 else values


def _standard(values: np.ndarray) -> np.ndarray:
    above = values - math.fsum(values) / len(values)
    variance = math.fsum(above * above) / max(1, len(values) - 1)
    return above / math.sqrt(variance) if variance > 0 else above
