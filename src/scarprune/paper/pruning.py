"""What each score costs: masked perplexity over scores and sparsities, the model loaded once."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from scarprune.errors import ArtifactError, NumericsError, PlanError
from scarprune.evaluate.ablate import Ablator
from scarprune.evaluate.perplexity import Perplexity, excess
from scarprune.evaluate.plans import judge_plans
from scarprune.plan.allocate import Ranked, uniform
from scarprune.plan.plan import Plan, PlannedSite
from scarprune.profile.sums import Profile
from scarprune.scores.core import profile_core
from scarprune.scores.score import Values, score, scores
from scarprune.stats.summary import standard_error

ProtocolName = Literal["ours", "paper"]
WITHOUT_CORE = "core_removed"  # the paper's control: the core goes first, then the smallest loss proxy


@dataclass(frozen=True, slots=True)
class Ranking:
    """Values that rank channels, and whether the core stays whatever they say."""

    name: str
    values: Values
    keeps_core: bool = False


def our_rankings(profile: Profile, seed: int = 0) -> tuple[list[Ranking], dict[str, str]]:
    """Every score that ``profile`` allows, random with the core kept, the core removed; what is missing."""
    found, missing = [], {}
    for item in scores():
        try:
            found.append(Ranking(item.name, score(profile, item.name, seed=seed), item.keeps_core))
        except (ArtifactError, NumericsError) as error:
            missing[item.name] = str(error)
    found.append(Ranking("random_core", score(profile, "random", seed=seed), True))
    found.append(without_core(profile))
    return found, missing


def without_core(profile: Profile) -> Ranking:
    """The loss proxy with its order turned round for the core: the core is removed first."""
    labels = "data" if "data" in profile.labels else "model"
    values = {name: q2.copy() for name, q2 in profile.total("sum_q2", labels=labels).items()}
    for name, core in profile_core(profile).items():
        values[name][core] = -1.0
    return Ranking(WITHOUT_CORE, values)


def prune_and_judge(
    ablator: Ablator,
    profile: Profile,
    ranking: Ranking,
    sparsities: Sequence[float],
    dense: Perplexity,
    protocol: ProtocolName,
) -> list[dict[str, Any]]:
    """One row a sparsity: floor(f m) of each site's channels masked, perplexity, its excess over ``dense``.

    ``block_excess_nats`` [blocks] is the excess of each block, for pairing scores with each other. Sparsities
    that do not leave the core are left out.
    """
    plans = {}
    for sparsity in sparsities:
        with contextlib.suppress(PlanError):
            plans[sparsity] = plan_of(profile, ranking, sparsity)
    rows = []
    for plan, judged in zip(plans.values(), judge_plans(ablator, list(plans.values())), strict=True):
        if isinstance(judged, NumericsError):
            raise judged
        nats, error = excess(dense, judged)
        rows.append(
            {
                "protocol": protocol,
                "score": ranking.name,
                "sparsity": plan.sparsity,
                "perplexity": judged.as_json()["perplexity"],
                "excess_nats": nats,
                "standard_error": error,
                "share_of_core_pruned": core_pruned(plan),
                "block_excess_nats": (judged.block_nats - dense.block_nats).tolist(),
            }
        )
    return rows


def plan_of(profile: Profile, ranking: Ranking, sparsity: float) -> Plan:
    """Uniform selection without rounding: of each site the floor(f m) smallest values go.

    Raises:
        PlanError: the sparsity does not leave the core.
    """
    cores = profile_core(profile)
    ranked = {
        site.name: Ranked(ranking.values[site.name], cores[site.name], ranking.keeps_core)
        for site in profile.sites
    }
    keep = uniform(ranked, sparsity, 1)
    return Plan(
        sites=tuple(
            PlannedSite(s.name, s.layer, s.width, keep[s.name], cores[s.name]) for s in profile.sites
        ),
        score=ranking.name,
        sparsity=sparsity,
        fingerprint=profile.fingerprint,
        protect="core" if ranking.keeps_core else None,
    )


def core_pruned(plan: Plan) -> float:
    """Share of all cores' channels that ``plan`` removes."""
    gone = sum(len(np.setdiff1d(site.core, site.keep)) for site in plan.sites)
    return gone / sum(len(site.core) for site in plan.sites)


def difference(
    a: Mapping[str, Any], b: Mapping[str, Any], targets: Sequence[int]
) -> tuple[float, float | None]:
    """Excess of row ``a`` minus that of ``b``, nats per target, and its standard error paired over blocks."""
    paired = np.subtract(a["block_excess_nats"], b["block_excess_nats"])
    return float(paired.sum() / np.sum(targets)), standard_error(paired / np.asarray(targets))
