"""How much of what the core writes lands on few dimensions, beside random cores (``method`` 4)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from scarprune.models.site import Site
from scarprune.models.weights import matrix
from scarprune.stats.select import outside

_DRAWS = 100


def write_support(
    model: Any, sites: Sequence[Site], core: Mapping[str, np.ndarray], q2: Mapping[str, np.ndarray], seed: int
) -> dict[str, Any]:
    """Share of a = sum over the core of abs(v_s) on its K = round(d / 16) largest entries, and of 100 random
    cores of the same size: channels outside the core that have a loss proxy (``q2`` [m] above zero)."""
    entries = []
    for index, site in enumerate(sites):
        down = matrix(model, site.down).detach()
        size, k = max(1, round(site.hidden / 16)), len(core[site.name])
        rest = outside(core[site.name], site.width)
        rest = rest[q2[site.name][rest] > 0]
        rng = np.random.default_rng([seed, index])
        drawn = [rng.choice(rest, k, replace=False) for _ in range(_DRAWS if len(rest) >= k else 0)]
        share, *others = _shares(_written(down, [core[site.name], *drawn]), size)
        entry: dict[str, Any] = {"name": site.name, "share": share}
        shares = [other for other in others if other is not None]
        low, high = np.quantile(shares, [0.025, 0.975]) if shares else (None, None)
        entry["random_mean"] = float(np.mean(shares)) if shares else None
        entry["random_low"] = None if low is None else float(low)
        entry["random_high"] = None if high is None else float(high)
        if not shares:
            entry["missing"] = {"random_mean": f"fewer than {k} channels outside the core"}
        entries.append(entry)
    return {"sites": entries}


def _written(down: torch.Tensor, sets: Sequence[np.ndarray]) -> np.ndarray:
    """a of each set of channels, by one product of abs(down) [d, m] with their indicators: [sets, d]."""
    member = torch.zeros(down.shape[1], len(sets), device=down.device)
    for column, channels in enumerate(sets):
        member[torch.from_numpy(channels).to(down.device), column] = 1
    written: np.ndarray = (down.float().abs() @ member).T.cpu().numpy().astype(np.float64)
    return written


def _shares(written: np.ndarray, size: int) -> list[float | None]:
    """Share of each row's sum that its ``size`` largest entries hold; None where it is all zero."""
    largest = np.partition(written, -size, axis=1)[:, -size:].sum(axis=1)
    totals = written.sum(axis=1)
    return [float(a / b) if b > 0 else None for a, b in zip(largest, totals, strict=True)]
