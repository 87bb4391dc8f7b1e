"""What each score costs: masked perplexity over scores and sparsities, the model loaded once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from scarprune.errors import ArtifactError, NumericsError, PlanError
from scarprune.evaluate.masks import masked
from scarprune.evaluate.perplexity import Perplexity, excess, perplexity
from scarprune.plan.allocate import Ranked, uniform
from scarprune.plan.plan import Plan, PlannedSite
from scarprune.profile.sums import Profile
from scarprune.scores.core import profile_core
from scarprune.scores.score import Values, score, scores
from scarprune.stats.summary import standard_error
from scarprune.text.blocks import Blocks

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
    model: Any,
    profile: Profile,
    ranking: Ranking,
    sparsities: Sequence[float],
    blocks: Blocks,
    dense: Perplexity,
    protocol: ProtocolName,
) -> list[dict[str, Any]]:
    """One row a sparsity: floor(f m) of each site's channels masked, perplexity, its excess over ``dense``.

    ``block_excess_nats`` [blocks] is the excess of each block, for pairing scores with each other. Sparsities
    that do not leave the core are left out.
    """
    rows = []
    for sparsity in sparsities:
        try:
            plan = plan_of(profile, ranking, sparsity)
        except PlanError:
            continue
        with masked(model, plan):
            judged = perplexity(model, blocks)
        nats, error = excess(dense, judged)
        rows.append(
            {
                "protocol": protocol,
                "score": ranking.name,
                "sparsity": sparsity,
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
