"""Which single channels are tried: a sample with known chances, and pairs that set two scores apart."""

from dataclasses import dataclass

import numpy as np

from scarprune.scores.score import Values
from scarprune.stats.select import largest

_CALIPER = 0.1  # of a natural logarithm: two channels count as matched within 10%
_APART = 4.0  # how far the other score of a pair must differ


@dataclass(frozen=True, eq=False)
class Sample:
    """Single channels, drawn by stratum.

    Attributes:
        site: str [n]; channel: int64 [n].
        stratum: str [n]: core, next (the next tenth of the site) or rest.
        weight: float64 [n], how many channels of its stratum and site each stands for.
    """

    site: np.ndarray
    channel: np.ndarray
    stratum: np.ndarray
    weight: np.ndarray

    def __len__(self) -> int:
        return len(self.channel)


def draw(lp: Values, core: Values, count: int, seed: int, whole: tuple[str, ...] = ()) -> Sample:
    """About ``count`` channels, a third of them from each stratum of each site by loss proxy ``lp``.

    Sites in ``whole`` are taken channel by channel, with weight 1, beside that.
    """
    rng = np.random.default_rng(seed)
    each = max(1, round(count / (3 * len(lp))))
    rows: list[tuple[str, int, str, float]] = []
    for site, values in lp.items():
        k, m = len(core[site]), len(values)
        upper = np.setdiff1d(largest(values, k + max(1, (m - k) // 10)), core[site])
        rest = np.setdiff1d(np.arange(m), np.concatenate([core[site], upper]))
        for name, members in (("core", core[site]), ("next", upper), ("rest", rest)):
            taken = len(members) if site in whole else min(each, len(members))
            for channel in rng.permutation(members)[:taken]:
                rows.append((site, int(channel), name, len(members) / taken))
    site_, channel_, stratum_, weight_ = zip(*rows, strict=True)
    return Sample(np.array(site_), np.array(channel_), np.array(stratum_), np.array(weight_))


@dataclass(frozen=True, slots=True)
class Pair:
    """Two channels of a site alike in one score and apart in another, of which ``high`` has more."""

    site: str
    high: int
    low: int


def pairs(alike: Values, apart: Values, count: int, seed: int) -> list[Pair]:
    """Up to ``count`` disjoint pairs within 10% in ``alike`` and a factor of 4 or more apart in ``apart``."""
    rng = np.random.default_rng(seed)
    found: list[Pair] = []
    each = -(-count // len(alike))
    for site, values in alike.items():
        found += _of_site(site, values, apart[site], each, rng)
    rng.shuffle(found)
    return found[:count]


def _of_site(
    site: str, alike: np.ndarray, apart: np.ndarray, most: int, rng: np.random.Generator
) -> list[Pair]:
    known = np.flatnonzero((alike > 0) & (apart > 0))
    order = known[np.argsort(alike[known], kind="stable")]
    level = np.log(alike[order])
    used: set[int] = set()
    found: list[Pair] = []
    for start in rng.permutation(len(order)):
        if len(found) == most:
            break
        first = int(order[start])
        stop = int(np.searchsorted(level, level[start] + _CALIPER, side="right"))
        near = order[start + 1 : stop]
        ratio = apart[near] / apart[first]
        fit = near[(ratio >= _APART) | (ratio <= 1 / _APART)]
        fit = fit[[int(channel) not in used for channel in fit]] if len(fit) else fit
        if first in used or not len(fit):
            continue
        second = int(rng.choice(fit))
        used |= {first, second}
        high, low = (second, first) if apart[second] > apart[first] else (first, second)
        found.append(Pair(site, high, low))
    return found
