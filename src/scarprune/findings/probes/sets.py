"""Sets of channels taken out together: what they do, and what the stored groups predict (``method`` 10)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scarprune.evaluate.ablate import Ablator
from scarprune.evaluate.removal import Removal
from scarprune.findings.probes.effect import effects
from scarprune.findings.probes.first_order import Gains, gain_of
from scarprune.profile.sums import Profile
from scarprune.scores.core import profile_core
from scarprune.scores.halo import halo
from scarprune.scores.score import Values, score
from scarprune.stats.select import largest, outside

NOT_QUADRATIC = 3.0
_NO_MODEL_LABELS = "predictions need sampled labels: profile with --labels both"


@dataclass(frozen=True, eq=False)
class _Set:
    name: str
    site: str  # or "all"
    removal: Removal
    replacement: str
    positions: str


def named_sets(profile: Profile, lp: Values, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """The sets of ``method`` 10 by name, each site name -> indices."""
    rng = np.random.default_rng(seed)
    cores, power = profile_core(profile), score(profile, "activation_power")
    found: dict[str, dict[str, np.ndarray]] = {}
    for site in profile.sites:
        core = cores[site.name]
        k = len(core)
        rest = outside(core, site.width)
        active = largest(power[site.name], k)
        of_site = {
            "core": core,
            "random": np.sort(rng.choice(rest, min(k, len(rest)), replace=False)),
            "next_by_loss_proxy": np.setdiff1d(largest(lp[site.name], 2 * k), core),
            "activation_outliers_outside_core": np.setdiff1d(active, core),
            "core_that_is_no_outlier": np.setdiff1d(core, active),
        }
        if profile.has("conn"):
            inside = halo(profile.get(site.name, "conn"), core)
            apart = outside(np.concatenate([core, inside]), site.width)
            of_site["halo"] = inside
            of_site["matched_to_halo"] = _matched(lp[site.name], inside, apart)
        for name, members in of_site.items():
            if len(members):
                found.setdefault(name, {})[site.name] = members
    return found


def _matched(lp: np.ndarray, wanted: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """For each of ``wanted``, largest first, the channel of ``pool`` nearest in ``lp`` not taken yet."""
    order = pool[np.argsort(lp[pool], kind="stable")]
    free = list(order)
    levels = list(lp[order])
    taken = []
    for channel in wanted[np.argsort(-lp[wanted], kind="stable")]:
        if not free:
            break
        at = int(np.searchsorted(levels, lp[channel]))
        near = min(
            (i for i in (at - 1, at) if 0 <= i < len(free)), key=lambda i: abs(levels[i] - lp[channel])
        )
        taken.append(free.pop(near))
        levels.pop(near)
    return np.sort(np.array(taken, dtype=np.int64))


def measure_sets(
    ablator: Ablator,
    profile: Profile,
    lp: Values,
    dense: np.ndarray,
    gains: dict[int, Gains],
    seed: int,
    sites: Sequence[str],
) -> list[dict[str, Any]]:
    """Every set at each of ``sites`` alone and at all sites together, as rows of ``sets``.

    ``gains`` holds the first-order terms from position 0 and from position 1 on.
    """
    means = {name: total / profile.positions() for name, total in profile.total("sum_u").items()}
    variants = list(_variants(named_sets(profile, lp, seed), means, sites))
    losses = ablator.losses([variant.removal for variant in variants], "Sets")
    linear = np.stack(
        [
            gain_of(variant.removal, gains[variant.removal.first_position])
            if variant.replacement == "zero"
            else np.zeros(len(dense))
            for variant in variants
        ]
    )
    found = effects(losses, dense, linear, ablator.blocks)
    rows = []
    for index, variant in enumerate(variants):
        zero = variant.replacement == "zero"
        whole = zero and variant.positions == "all"
        predicted = predicted_loss(profile, variant.removal.channels) if whole else None
        ratio = float(found.d[index]) / predicted if predicted else None
        rows.append(
            {
                "set": variant.name,
                "site": variant.site,
                "replacement": variant.replacement,
                "positions": variant.positions,
                "size": int(sum(len(c) for c in variant.removal.channels.values())),
                "dl_nats": float(found.dl[index]),
                "d_nats": float(found.d[index]) if zero else None,
                "standard_error": number(found.error[index]),
                "predicted_nats": predicted,
                "ratio": ratio,
                "not_quadratic": None if ratio is None else ratio > NOT_QUADRATIC,
                "missing": _missing(profile, zero, whole),
            }
        )
    return rows


def predicted_loss(profile: Profile, channels: Mapping[str, np.ndarray]) -> float | None:
    """F(S) = 1/2 (1/N) sum over groups of (sum over S of G~)^2, nats a target; None without model labels."""
    if "model" not in profile.labels:
        return None
    total = sum(
        profile.get(name, "groups_G", "model")[:, members].sum(axis=1) for name, members in channels.items()
    )
    return 0.5 * float(np.square(total).sum()) / profile.targets()


def number(value: float) -> float | None:
    """``value``, or None where it is not a number."""
    return float(value) if np.isfinite(value) else None


def _missing(profile: Profile, zero: bool, whole: bool) -> dict[str, str]:
    if not zero:
        return {"d_nats": "the first-order term is of removal to zero", "predicted_nats": "as d_nats"}
    if not whole:
        return {"predicted_nats": "the groups hold all positions together"}
    return {} if "model" in profile.labels else {"predicted_nats": _NO_MODEL_LABELS}


def _variants(
    sets: dict[str, dict[str, np.ndarray]], means: dict[str, np.ndarray], sites: Sequence[str]
) -> Iterator[_Set]:
    for name, by_site in sets.items():
        places = [(site, {site: by_site[site]}) for site in sites if site in by_site]
        for place, channels in [*places, ("all", by_site)]:
            for replacement, fill in (("zero", None), ("mean", means)):
                for positions, first in (("all", 0), ("without_0", 1)):
                    removal = Removal(channels, fill, first)
                    yield _Set(name, place, removal, replacement, positions)
