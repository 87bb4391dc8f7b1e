"""Whether another score would have found the core: overlap, ranks, mass and a regression (``method`` 3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scarprune.errors import ScarpruneError
from scarprune.findings.resample import (
    CONSTANT,
    NO_LOSS,
    chance,
    core_size,
    group_sums,
    label_of,
    leaving_one_out,
    median_interval,
    quarter_sums,
    spread_json,
    with_reasons,
)
from scarprune.models.site import Site
from scarprune.profile.sums import Profile
from scarprune.scores.score import score, scores
from scarprune.stats.concentration import share
from scarprune.stats.interval import Scale
from scarprune.stats.overlap import expected_jaccard, jaccard
from scarprune.stats.rank import product, r_squared, unit_ranks
from scarprune.stats.select import largest

# Scores that are the loss proxy itself, or that change it in the halo alone, explain nothing.
_ITSELF = ("loss_proxy", "scar_prot", "scar_conn")
_OF_WEIGHTS = ("weight_norm", "weight_norm_down", "random")
# Scores whose ranking is that of sum u^2 times a power of a norm, so that parts of the text give them too.
_OF_POWER = {
    "activation_power": None,
    "output_power": "down_norm2",
    "wanda_down": "down_norm2",
    "wanda_sp": "down_norm1",
}
_PREDICTORS = ("activation_power", "gate_norm2", "up_norm2", "down_norm2")
_SCALES: dict[str, Scale] = {"jaccard": "logit", "spearman": "fisher", "lp_mass_of_its_top": "logit"}


@dataclass(frozen=True)
class _Ranked:
    """One site's sums of q^2, its top k, and its ranks: each is needed once for every score."""

    q2: np.ndarray
    k: int
    top: np.ndarray
    ranks: np.ndarray | None

    @classmethod
    def of(cls, q2: np.ndarray, k: int) -> "_Ranked":
        return cls(q2, k, largest(q2, k), unit_ranks(q2))

    def against(self, other: np.ndarray) -> dict[str, float | None]:
        return self.against_ranked(other, largest(other, self.k), unit_ranks(other))

    def against_ranked(
        self, other: np.ndarray, top: np.ndarray, ranks: np.ndarray | None
    ) -> dict[str, float | None]:
        some = self.q2.max() > 0
        return {
            "jaccard": jaccard(self.top, top) if some else None,
            "spearman": product(self.ranks, ranks),
            "lp_mass_of_its_top": share(self.q2, top),
        }


@dataclass(frozen=True)
class _Parts:
    """The loss proxy of one site over the whole text, and leaving out an eighth or a quarter of it."""

    whole: _Ranked
    eighths: list[_Ranked]
    quarters: list[_Ranked]
    power: np.ndarray  # sum of u^2 leaving out each quarter


def explanations(profile: Profile) -> dict[str, Any]:
    """The loss proxy beside every other score that the profile allows, and what sizes alone explain of it.

    Intervals are of medians over sites: jackknife over 8 groups of blocks where a score is fixed or kept by
    group, over 4 where it comes from activations, whose squares are kept for 4.
    """
    parts = {site.name: _parts(profile, site) for site in profile.sites}
    found: dict[str, Any] = {}
    not_computed: dict[str, str] = {}
    for name in (item.name for item in scores()):
        if name in _ITSELF or (name == "fisher" and label_of(profile) == "model"):
            not_computed[name] = "it is the loss proxy itself, or made from it"
            continue
        try:
            values = score(profile, name)
        except ScarpruneError as error:
            not_computed[name] = str(error)
            continue
        found[name] = _of_score(profile, name, values, parts)
    return {
        "labels": label_of(profile),
        "scores": found,
        "regression": _regression(profile),
        "not_computed": not_computed,
    }


def _parts(profile: Profile, site: Site) -> _Parts:
    labels, k = label_of(profile), core_size(profile, site.width)
    loss, power = quarter_sums(profile, site.name, labels)
    return _Parts(
        _Ranked.of(profile.total("sum_q2", labels=labels)[site.name], k),
        [_Ranked.of(q2, k) for q2 in leaving_one_out(group_sums(profile, site.name, labels))],
        [_Ranked.of(q2, k) for q2 in leaving_one_out(loss)],
        leaving_one_out(power),
    )


def _of_score(
    profile: Profile, name: str, values: dict[str, np.ndarray], parts: dict[str, _Parts]
) -> dict[str, Any]:
    sites, left_out = [], []
    for site in profile.sites:
        whole, other = parts[site.name].whole, values[site.name]
        top, ranks = largest(other, whole.k), unit_ranks(other)
        found = whole.against_ranked(other, top, ranks)
        common = len(np.intersect1d(whole.top, top)) / whole.k
        entry = {
            "name": site.name,
            **found,
            "overlap": None if found["jaccard"] is None else common,
            "chance_jaccard": expected_jaccard(site.width, whole.k, whole.k),
        }
        reasons = dict.fromkeys(("jaccard", "overlap", "lp_mass_of_its_top"), NO_LOSS)
        sites.append(with_reasons(entry, {**reasons, "spearman": CONSTANT}))
        left_out.append(_without(profile, site, name, parts[site.name], (other, top, ranks)))
    summary: dict[str, Any] = {}
    for key, scale in _SCALES.items():
        column = [entry[key] for entry in sites]
        without = [[part[key] for part in of_site] for of_site in left_out]
        summary[key] = spread_json(column) | {"interval": _interval(column, without, scale)}
    summary["jaccard"]["chance"] = chance(
        [site.width for site in profile.sites], [parts[site.name].whole.k for site in profile.sites]
    )
    summary["overlap"] = spread_json(entry["overlap"] for entry in sites)
    return {"sites": sites, "summary": summary}


def _interval(
    column: Sequence[float | None], without: Sequence[Sequence[float | None]], scale: Scale
) -> dict[str, Any] | None:
    return median_interval(column, without, scale).as_json() if any(without) else None


def _without(
    profile: Profile,
    site: Site,
    name: str,
    parts: _Parts,
    fixed: tuple[np.ndarray, np.ndarray, np.ndarray | None],
) -> list[dict[str, float | None]]:
    """Loss proxy beside the score, both leaving out the same part of the text; [] where that is not kept."""
    if name in _OF_WEIGHTS:
        return [part.against_ranked(*fixed) for part in parts.eighths]
    if name in _OF_POWER:
        norm = _OF_POWER[name]
        weight = 1.0 if norm is None else np.square(profile.get(site.name, norm))
        pairs = zip(parts.quarters, parts.power, strict=True)
        return [part.against(power * weight) for part, power in pairs]
    if name == "fisher":
        fisher = leaving_one_out(group_sums(profile, site.name, "model"))
        return [part.against(q2) for part, q2 in zip(parts.eighths, fisher, strict=True)]
    return []


def _regression(profile: Profile) -> dict[str, Any]:
    """R^2 of log LP by the logs of activation power and weight norms; zeros are left out and counted."""
    q2, u2 = profile.total("sum_q2", labels=label_of(profile)), profile.total("sum_u2")
    sites = []
    for site in profile.sites:
        norms = [n for n in _PREDICTORS[1:] if n != "gate_norm2" or site.gated]
        columns = [q2[site.name], u2[site.name], *(profile.get(site.name, norm) for norm in norms)]
        table = np.stack(columns, axis=1)
        logs = np.log(table[(table > 0).all(axis=1)])
        entry = {
            "name": site.name,
            "r2": r_squared(logs[:, 0], logs[:, 1:]) if len(logs) else None,
            "used": len(logs),
            "left_out": site.width - len(logs),
        }
        why = "fewer channels than coefficients are left, or all have one loss proxy"
        sites.append(with_reasons(entry, {"r2": why}))
    gated = any(site.gated for site in profile.sites)
    return {
        "sites": sites,
        "summary": {"r2": spread_json(entry["r2"] for entry in sites)},
        "predictors": [name for name in _PREDICTORS if name != "gate_norm2" or gated],
    }
