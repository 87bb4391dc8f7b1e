"""What the epsilon, the mean loss and the unpacked headings of the paper's protocol change on one model."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from scarprune.paper.protocol import PaperMeasured, scar_scores
from scarprune.paper.pruning import Ranking, plan_of
from scarprune.paper.redundancy import EPSILON
from scarprune.profile.redundancy import correlations, redundancy
from scarprune.profile.run import profile_model
from scarprune.profile.sums import Profile
from scarprune.scores.core import core, profile_core
from scarprune.scores.halo import halo
from scarprune.stats.concentration import share
from scarprune.stats.overlap import expected_jaccard, jaccard
from scarprune.stats.rank import product, unit_ranks
from scarprune.stats.select import outside
from scarprune.stats.summary import spread

SHORT = 32  # tokens; a text below is a heading, a list's item or the like
_HALF = 0.5


def of_epsilon(measured: PaperMeasured) -> dict[str, Any]:
    """Section ``epsilon``: the same sums with the published constant in the denominator, and without.

    ``share_of_pairs_above`` is how many pairs of a channel with a core channel have a product of variances
    above the constant; ``zero_with`` the share of halo channels whose float32 redundancy is exactly 0.
    """
    profile, count = measured.profile, int(measured.few.lengths.sum())
    cores, conn = profile_core(profile), profile.total("conn")
    clean = {
        name: redundancy(correlations(m.cross, m.first, m.second, cores[name], count), cores[name])["top5"]
        for name, m in measured.moments.items()
    }
    sites: list[dict[str, Any]] = []
    pooled: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"with": [], "without": []}
    for site in profile.sites:
        name, members = site.name, cores[site.name]
        inside = halo(conn[name], members)
        rest = outside(np.concatenate([members, inside]), site.width)
        with_, without = measured.red[name].astype(np.float64), clean[name]
        pooled["with"].append((with_[inside], with_[rest]))
        pooled["without"].append((without[inside], without[rest]))
        m = measured.moments[name]
        variance = np.maximum(m.second / count - (m.first / count) ** 2, 0.0)
        others = np.concatenate([inside, rest])
        sites.append(
            {
                "name": name,
                "ratio_with": _ratio(with_[inside], with_[rest]),
                "ratio_without": _ratio(without[inside], without[rest]),
                "halo_median_with": float(np.median(with_[inside])),
                "halo_median_without": float(np.median(without[inside])),
                "zero_with": float((with_[inside] == 0).mean()),
                "spearman_in_halo": product(unit_ranks(with_[inside]), unit_ranks(without[inside])),
                "share_of_pairs_above": float(
                    (np.outer(variance[others], variance[members]) > EPSILON).mean()
                ),
            }
        )
    kept = {
        key: plan_of(profile, Ranking(key, scar_scores(profile, red)["scar_prot"], True), _HALF).keep
        for key, red in (("with", measured.red), ("without", clean))
    }
    same = [jaccard(kept["with"][site.name], kept["without"][site.name]) for site in profile.sites]
    keys = [key for key in sites[0] if key != "name"]
    return {
        "epsilon": EPSILON,
        "pooled_ratio_with": _ratio(*(np.concatenate(parts) for parts in zip(*pooled["with"], strict=True))),
        "pooled_ratio_without": _ratio(
            *(np.concatenate(parts) for parts in zip(*pooled["without"], strict=True))
        ),
        "sites": sites,
        "summary": {key: spread(entry[key] for entry in sites).as_json() for key in keys},
        "kept_at_half_jaccard": spread(same).as_json(),
    }


def of_texts(model: Any, measured: PaperMeasured, ours: Profile | None) -> dict[str, Any]:
    """Section ``texts``: the core of the paper's lines beside that of other ways to read and to add up.

    ``mean_of_long`` leaves out lines below ``SHORT`` tokens; what it lacks of the whole is the loss proxy of
    the short ones. ``packed`` is our profile of packed blocks, where
    there is one.
    """
    long = np.flatnonzero(measured.texts.lengths >= SHORT)
    short_targets = int((measured.texts.lengths - 1).sum() - (measured.texts.lengths[long] - 1).sum())
    profiles: dict[str, Profile | None] = {
        "paper": measured.profile,
        "sum_of_all": profile_model(model, measured.texts, redundancy=False),
        "mean_of_long": None,
        "sum_of_long": None,
        "packed": ours,
    }
    if 0 < len(long) < len(measured.texts):
        chosen = measured.texts.take(long)
        profiles["mean_of_long"] = profile_model(model, chosen, redundancy=False, mean_loss=True)
        profiles["sum_of_long"] = profile_model(model, chosen, redundancy=False)
    q2 = {name: None if p is None else p.total("sum_q2") for name, p in profiles.items()}
    by_mean, by_sum = (
        _held_by_short(q2[whole], q2[without])
        for whole, without in (("paper", "mean_of_long"), ("sum_of_all", "sum_of_long"))
    )
    missing = "" if long.size else f"no line has {SHORT} tokens"
    if len(long) == len(measured.texts):
        missing = f"no line has fewer than {SHORT} tokens"
    rho = float(measured.profile.header.get("rho", 0.01))
    return {
        "texts": len(measured.texts),
        "short_texts": len(measured.texts) - len(long),
        "short": SHORT,
        "share_of_targets_in_short": short_targets / measured.texts.targets,
        "lp_share_of_short_with_mean": by_mean,
        "lp_share_of_short_with_sum": by_sum,
        "core_share": {
            name: None if p is None else spread(_shares(p, rho)).as_json() for name, p in profiles.items()
        },
        "jaccard_with_paper": {
            name: None if p is None else _overlap(measured.profile, p, rho)
            for name, p in profiles.items()
            if name != "paper"
        },
        "missing": {"long": missing} if missing else {},
    }


def _ratio(inside: np.ndarray, rest: np.ndarray) -> float | None:
    """Of means, as the paper's figure has it."""
    if not len(inside) or not len(rest) or not rest.mean() > 0:
        return None
    return float(inside.mean() / rest.mean())


def _held_by_short(
    whole: Mapping[str, np.ndarray] | None, without: Mapping[str, np.ndarray] | None
) -> dict[str, float | None] | None:
    if whole is None or without is None:
        return None
    of: Callable[[np.ndarray, np.ndarray], float | None] = lambda a, b: (  # noqa: E731
        float(1 - b.sum() / a.sum()) if a.sum() > 0 else None
    )
    return spread(of(whole[name], without[name]) for name in whole).as_json()


def _shares(profile: Profile, rho: float) -> list[float | None]:
    totals = profile.total("sum_q2")
    return [share(totals[name], members) for name, members in core(profile, rho).items()]


def _overlap(a: Profile, b: Profile, rho: float) -> dict[str, float | None]:
    ours, theirs = core(a, rho), core(b, rho)
    site = a.sites[0]
    k = len(ours[site.name])
    return {
        **spread(jaccard(ours[name], theirs[name]) for name in ours).as_json(),
        "chance": expected_jaccard(site.width, k, k),
    }
