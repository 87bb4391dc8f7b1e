"""Whole plans as masks: does keeping the core explain what a score is worth? (``method`` 10)"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from scarprune.errors import ArtifactError
from scarprune.evaluate.ablate import Ablator
from scarprune.evaluate.removal import Removal
from scarprune.plan.plan import Plan, make_plan
from scarprune.profile.sums import Profile
from scarprune.scores.core import profile_core
from scarprune.scores.score import Values
from scarprune.stats.select import floor_share, largest, outside
from scarprune.stats.summary import standard_error

SCORES = ("loss_proxy", "fisher", "fisher_activation", "activation_power", "taylor", "wanda_down", "random")
_FORCED = (0.0, 0.1, 0.25, 0.5, 1.0)


def hit_rates(
    ablator: Ablator, profile: Profile, dense: np.ndarray, sparsities: Sequence[float], seed: int
) -> list[dict[str, Any]]:
    """Share of the core pruned and excess loss, by score and sparsity."""
    plans: list[tuple[str, float, Plan]] = []
    for name in SCORES:
        for sparsity in sparsities:
            try:
                plan = make_plan(profile, score=name, sparsity=sparsity, multiple_of=1, seed=seed)
            except ArtifactError:  # the profile lacks what this score needs
                break
            plans.append((name, sparsity, plan))
    removals = [_removal(profile, plan.keep) for _, _, plan in plans]
    rows = _excess(ablator, removals, dense)
    return [
        {"score": name, "sparsity": sparsity, "share_of_core_pruned": _pruned(profile, plan.keep), **row}
        for (name, sparsity, plan), row in zip(plans, rows, strict=True)
    ]


def forced_hit_rates(
    ablator: Ablator, profile: Profile, dense: np.ndarray, sparsity: float, seed: int
) -> list[dict[str, Any]]:
    """Excess with a given share of the core pruned and all else chosen at random."""
    rng = np.random.default_rng(seed)
    cores = profile_core(profile)
    keeps = []
    for share in _FORCED:
        keep = {}
        for site in profile.sites:
            core = cores[site.name]
            gone = rng.permutation(core)[: round(share * len(core))]
            others = outside(core, site.width)
            left = max(0, site.width - floor_share(sparsity, site.width) - (len(core) - len(gone)))
            kept = rng.permutation(others)[:left]
            keep[site.name] = np.sort(np.concatenate([np.setdiff1d(core, gone), kept]))
        keeps.append(keep)
    rows = _excess(ablator, [_removal(profile, keep) for keep in keeps], dense)
    return [
        {"sparsity": sparsity, "share_of_core_pruned": _pruned(profile, keep), **row}
        for keep, row in zip(keeps, rows, strict=True)
    ]


def random_cores(
    ablator: Ablator, profile: Profile, lp: Values, dense: np.ndarray, sparsity: float, seed: int
) -> list[dict[str, Any]]:
    """The four ways to combine ranking (loss proxy, random) with what is protected (core, random 1%)."""
    rng = np.random.default_rng(seed)
    cores = profile_core(profile)
    randoms = {
        site.name: np.sort(rng.choice(site.width, len(cores[site.name]), replace=False))
        for site in profile.sites
    }
    chance = {site.name: rng.random(site.width) for site in profile.sites}
    ways, keeps = [], []
    for ranking, values in (("loss_proxy", lp), ("random", chance)):
        for protected, members in (("core", cores), ("random", randoms)):
            ways.append((ranking, protected))
            keeps.append({name: _keep(values[name], members[name], sparsity) for name in values})
    rows = _excess(ablator, [_removal(profile, keep) for keep in keeps], dense)
    return [
        {"ranking": ranking, "protected": protected, "sparsity": sparsity, **row}
        for (ranking, protected), row in zip(ways, rows, strict=True)
    ]


def _keep(values: np.ndarray, protected: np.ndarray, sparsity: float) -> np.ndarray:
    """``protected`` and, of the others, the largest ``values``."""
    lifted = values.copy()
    lifted[protected] = np.inf
    return largest(lifted, len(values) - floor_share(sparsity, len(values)))


def _removal(profile: Profile, keep: dict[str, np.ndarray]) -> Removal:
    return Removal({site.name: outside(keep[site.name], site.width) for site in profile.sites})


def _pruned(profile: Profile, keep: dict[str, np.ndarray]) -> float:
    cores = profile_core(profile)
    gone = sum(len(np.setdiff1d(core, keep[name])) for name, core in cores.items())
    return gone / sum(len(core) for core in cores.values())


def _excess(ablator: Ablator, removals: list[Removal], dense: np.ndarray) -> list[dict[str, Any]]:
    losses = ablator.losses(removals, "Plans")
    targets = ablator.blocks.lengths - 1
    return [
        {
            "excess_nats": float((row - dense).sum() / targets.sum()),
            "standard_error": standard_error((row - dense) / targets),
        }
        for row in losses
    ]
