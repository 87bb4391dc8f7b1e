"""How far the core depends on the text: halves of it, and more and more of it (``method`` 3)."""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np

from scarprune.findings.resample import (
    chance,
    core_size,
    filled,
    filled_quarters,
    group_sums,
    halves,
    label_of,
    spread_json,
)
from scarprune.profile.sums import Profile
from scarprune.stats.overlap import jaccard
from scarprune.stats.rank import spearman
from scarprune.stats.select import largest
from scarprune.stats.summary import spread

_FEW = "needs two groups of blocks that are not empty"


def stability(profile: Profile) -> dict[str, Any]:
    """Agreement of halves on core and ranks, and the core of growing and of disjoint parts of the text.

    Loss proxy with data labels where the profile has them; activation power beside it.
    """
    labels = label_of(profile)
    loss = {site.name: group_sums(profile, site.name, labels) for site in profile.sites}
    quarters = filled_quarters(profile)
    power = {site.name: profile.get(site.name, "groups_u2")[quarters] for site in profile.sites}
    sizes = [core_size(profile, site.width) for site in profile.sites]
    found: dict[str, Any] = {
        "labels": labels,
        "split_half": _split_half(loss, sizes) if len(filled(profile)) > 1 else None,
        "activation_split_half": _split_half(power, sizes) if len(quarters) > 1 else None,
        "settling": _settling(profile, loss, sizes) if len(filled(profile)) > 1 else None,
    }
    return {**found, "missing": {key: _FEW for key, value in found.items() if value is None}}


def half_cores(
    groups: np.ndarray, k: int, way: str = "contiguous"
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] | None:
    """Sums of both halves of ``groups`` [groups, m], and their ``k`` largest; None if one has no mass."""
    if len(groups) < 2:
        return None
    first, second = (groups[list(part)].sum(0) for part in halves(len(groups))[way])
    if first.max() <= 0 or second.max() <= 0:
        return None
    return (first, second), (largest(first, k), largest(second, k))


def _split_half(parts: dict[str, np.ndarray], sizes: list[int]) -> dict[str, Any]:
    widths = [groups.shape[1] for groups in parts.values()]
    found: dict[str, Any] = {}
    for way in halves(2):
        overlaps: list[float | None] = []
        ranks: list[float | None] = []
        for groups, k in zip(parts.values(), sizes, strict=True):
            both = half_cores(groups, k, way)
            overlaps.append(jaccard(*both[1]) if both else None)
            ranks.append(spearman(*both[0]) if both else None)
        found[way] = {
            "jaccard": spread_json(overlaps) | {"chance": chance(widths, sizes)},
            "spearman": spread_json(ranks),
            "sites": [
                {"name": name, "jaccard": overlap, "spearman": rank}
                for name, overlap, rank in zip(parts, overlaps, ranks, strict=True)
            ],
        }
    return found


def _settling(profile: Profile, loss: dict[str, np.ndarray], sizes: list[int]) -> dict[str, Any]:
    """Core of the first 1, 2, ... groups against that of all, and of runs of groups that share no block.

    The growing part is in the whole, so its curve ends at 1 whatever happens; disjoint parts say how far two
    texts of that size agree.
    """
    targets = profile.group_targets[filled(profile)]
    growing, apart = [], []
    lengths = [size for size in (1, 2, 4) if 2 * size <= len(targets)]
    for groups, k in zip(loss.values(), sizes, strict=True):
        whole = groups.sum(0)
        core = largest(whole, k)
        prefixes = (sums for sums in np.cumsum(groups, axis=0))
        growing.append([jaccard(largest(p, k), core) if p.max() > 0 else None for p in prefixes])
        apart.append([_disjoint(groups, k, size) for size in lengths])
    return {
        "tokens": np.cumsum(targets).tolist(),
        "jaccard_with_all": [spread(column).median for column in zip(*growing, strict=True)],
        "disjoint_tokens": [round(float(targets.mean()) * size) for size in lengths],
        "disjoint_jaccard": [spread(column).median for column in zip(*apart, strict=True)],
        "chance": chance([groups.shape[1] for groups in loss.values()], sizes),
        "sites": [
            {"name": name, "jaccard_with_all": one, "disjoint_jaccard": two}
            for name, one, two in zip(loss, growing, apart, strict=True)
        ],
    }


def _disjoint(groups: np.ndarray, k: int, size: int) -> float | None:
    """Mean Jaccard of the cores of all pairs of runs, none overlapping, of ``size`` groups."""
    cores = list(_cores_of_runs(groups, k, size))
    found = [jaccard(a, b) for a, b in combinations(cores, 2)]
    return float(np.mean(found)) if found else None


def _cores_of_runs(groups: np.ndarray, k: int, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(groups) - size + 1, size):
        total = groups[start : start + size].sum(0)
        if total.max() > 0:
            yield largest(total, k)
