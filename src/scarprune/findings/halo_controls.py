"""Whether the halo is redundant with the core beyond its controls (``method`` 10)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from scarprune.findings.halo import halo_of_profile
from scarprune.findings.matching import matched, standardised_difference
from scarprune.findings.moments import FEWEST_UNITS, VARIANTS, Crossed, Job, Moments, gather
from scarprune.findings.sensitivity import sensitivity
from scarprune.findings.sign_flips import (
    Statistic,
    estimates,
    flip_p,
    log_ratio,
    of_crossed,
    pooled_auc,
    signs,
    without_each_group,
)
from scarprune.findings.write_support import write_support
from scarprune.models.find import find_sites
from scarprune.models.site import Site
from scarprune.profile.sums import Profile
from scarprune.profile.weights import connection
from scarprune.scores.core import profile_core
from scarprune.scores.halo import halo
from scarprune.stats.interval import over_units
from scarprune.stats.select import outside
from scarprune.stats.summary import spread
from scarprune.text.blocks import Blocks

_ROWS_OF_A_RANDOM_CORE = 32
_NAMES = {
    "sampled": "sampled channels outside it",
    "matched": "channels of like loss proxy outside it",
    "random_core": "with a random core of like rank",
}


@dataclass
class Measured:
    """The section ``halo``, and the tokens that the core's channels rest on."""

    halo: dict[str, Any]
    moments: Moments
    blocks: Blocks


@dataclass
class _Plan:
    """What one site's jobs are made of: places of each set among the rows of the main job."""

    jobs: list[Job]
    halo: np.ndarray
    sampled: np.ndarray
    matched_halo: np.ndarray
    matched_control: np.ndarray
    own: list[tuple[int, int]]  # of each random core: rows of its halo, then of its control
    balance: dict[str, Any]


def measure_halo(
    model: Any,
    profile: Profile,
    blocks: Blocks,
    *,
    seed: int = 0,
    flips: int = 200,
    random_cores: int = 20,
    most: int = 128,
    batch: int | Literal["auto"] = "auto",
    resume: Path | None = None,
) -> Measured:
    """Section ``halo`` with its controls, by one pass over ``blocks``, most naturally the profile's own.

    Args:
        seed: of samples, random cores and signs.
        flips: sign flips of the null.
        random_cores: cores drawn from LP ranks k + 1 .. 10 k, each with its own halo.
        most: halo channels sampled per site, and as many controls of each kind.
        batch: blocks at once; ``auto`` takes what fits and halves where memory runs out.
        resume: file that keeps the state of an unfinished pass; where it is there, the pass goes on from it.

    Raises:
        ArtifactError: ``resume`` is of another model, text or profile.
        TextError: ids outside the vocabulary or blocks beyond the context.
        NumericsError: a q is not finite.
    """
    found = halo_of_profile(profile) or {}
    sites, core = find_sites(model), profile_core(profile)
    labels = "data" if "data" in profile.labels else "model"
    q2, q4 = profile.total("sum_q2", labels=labels), profile.total("sum_q4", labels=labels)
    rms = {name: np.sqrt(values / max(profile.targets(), 1)) for name, values in q2.items()}
    enough = len(blocks) >= FEWEST_UNITS
    plans: dict[str, _Plan] = {}
    for index, site in enumerate(sites):
        rng = np.random.default_rng([seed, index])
        if enough and len(core[site.name]) < site.width and q2[site.name].max() > 0:
            traits = np.column_stack([q2[site.name], _effective(q2[site.name], q4[site.name])])
            plans[site.name] = _plan(model, site, core[site.name], traits, rng, most, random_cores)
    jobs: dict[str, Sequence[Job]] = {s.name: plans[s.name].jobs if s.name in plans else [] for s in sites}
    moments = gather(model, blocks, jobs, core, rms, batch, resume)
    found["write_support"] = write_support(model, sites, core, q2, seed=seed)
    found["sensitivity"] = sensitivity(profile)
    missing = found.setdefault("missing", {})
    found["controls"] = _controls(plans, moments, flips, seed) if plans else None
    if not enough:
        missing["controls"] = f"needs {FEWEST_UNITS} blocks of text or more, not {len(blocks)}"
    elif not plans:
        missing["controls"] = "no site has both a loss proxy and channels outside its core"
    return Measured(found, moments, blocks)


def _effective(q2: np.ndarray, q4: np.ndarray) -> np.ndarray:
    """n_eff = (sum q^2)^2 / sum q^4; 0 for a channel without any."""
    scaled = np.divide(q2, np.sqrt(q4), out=np.zeros_like(q2), where=q4 > 0)
    effective: np.ndarray = scaled**2
    return effective


def _plan(
    model: Any,
    site: Site,
    core: np.ndarray,
    traits: np.ndarray,
    rng: np.random.Generator,
    most: int,
    random_cores: int,
) -> _Plan:
    conn = connection(model, site, core)["conn"]
    members = halo(conn, core)
    rest = outside(np.concatenate([core, members]), site.width)
    inside, sample = _sample(rng, members, most), _sample(rng, rest, most)
    pair_halo, pair_rest = matched(traits, inside, rest, rng)
    rows = np.unique(np.concatenate([inside, sample, pair_rest]))
    jobs = [Job(rows, core, VARIANTS)]
    own: list[tuple[int, int]] = []
    ranked = np.argsort(-traits[:, 0], kind="stable")
    pool = ranked[len(core) : 10 * len(core)]
    pool = pool[traits[pool, 0] > 0]
    if len(pool) >= len(core):
        jobs.append(Job(inside, np.sort(rng.choice(pool, len(core), replace=False)), VARIANTS))
        for _ in range(random_cores):
            other = np.sort(rng.choice(pool, len(core), replace=False))
            theirs = halo(connection(model, site, other)["conn"], other)
            beyond = outside(np.concatenate([other, theirs]), site.width)
            a, b = (_sample(rng, x, min(most, _ROWS_OF_A_RANDOM_CORE)) for x in (theirs, beyond))
            jobs.append(Job(np.concatenate([a, b]), other))
            own.append((len(a), len(b)))
    names = ("log_lp", "log_n_eff")
    return _Plan(
        jobs=jobs,
        halo=np.searchsorted(rows, inside),
        sampled=np.searchsorted(rows, sample),
        matched_halo=np.searchsorted(rows, pair_halo),
        matched_control=np.searchsorted(rows, pair_rest),
        own=own,
        balance={
            "pairs": len(pair_halo),
            "of": len(inside),
            "before": dict(zip(names, standardised_difference(traits, inside, sample), strict=True)),
            "after": dict(zip(names, standardised_difference(traits, pair_halo, pair_rest), strict=True)),
        },
    )


def _sample(rng: np.random.Generator, indices: np.ndarray, most: int) -> np.ndarray:
    return indices if len(indices) <= most else np.sort(rng.choice(indices, most, replace=False))


def _controls(plans: Mapping[str, _Plan], moments: Moments, flips: int, seed: int) -> dict[str, Any]:
    drawn = signs(flips, moments.units, seed)
    variants = {variant: _variant(plans, moments, drawn, variant) for variant in VARIANTS}
    return {
        "units": moments.units,
        "flips": flips,
        "variants": variants,
        "balance": {"sites": [{"name": name, **plan.balance} for name, plan in plans.items()]},
    }


def _variant(plans: Mapping[str, _Plan], moments: Moments, drawn: np.ndarray, variant: str) -> dict[str, Any]:
    kinds: dict[str, list[dict[str, Any]]] = {"sampled": [], "matched": [], "random_core": []}
    flipped: list[dict[str, Any]] = []
    random: list[dict[str, Any]] = []
    for name, plan in plans.items():
        crossed = [job[variant] for job in moments.crossed[name] if variant in job]
        main, others = of_crossed(crossed[0], drawn), without_each_group(crossed[0], drawn)
        kinds["sampled"].append(_site(name, main, others, plan.halo, main, others, plan.sampled))
        kinds["matched"].append(
            _site(name, main, others, plan.matched_halo, main, others, plan.matched_control)
        )
        flipped.append(
            {
                "name": name,
                "excess_median_halo": float(np.median(main.excess[plan.halo])),
                "p": flip_p(main, plan.halo),
            }
        )
        if len(crossed) > 1:
            second, its = of_crossed(crossed[1], drawn), without_each_group(crossed[1], drawn)
            every = np.arange(len(plan.halo))
            kinds["random_core"].append(_site(name, main, others, plan.halo, second, its, every))
        if variant == "plain" and plan.own:
            observed = log_ratio(main.excess[plan.halo], main.excess[plan.sampled])
            random.append(_random_cores(name, observed, crossed[2:], plan.own, drawn))
    small = sum(site["p"] < 0.05 for site in flipped)
    out: dict[str, Any] = {kind: _pooled(kind, sites) for kind, sites in kinds.items()}
    out["sign_flips"] = {"sites": flipped, "share_below_0.05": small / len(flipped)}
    if variant == "plain":
        p = spread(site["p"] for site in random).as_json()
        count = max((len(plan.own) for plan in plans.values()), default=0)
        out["random_cores"] = {"count": count, "sites": random, "summary": {"p": p}}
    return out


def _site(
    name: str,
    first: Statistic,
    first_left_out: Sequence[Statistic],
    rows: np.ndarray,
    second: Statistic,
    second_left_out: Sequence[Statistic],
    control: np.ndarray,
) -> dict[str, Any]:
    a, b = first.excess[rows], second.excess[control]
    pairs = [
        (x.excess[rows], y.excess[control]) for x, y in zip(first_left_out, second_left_out, strict=True)
    ]
    ratio, auc = estimates((a, b), pairs)
    raw = log_ratio(first.raw[rows], second.raw[control])
    missing = {}
    if ratio.value is None:
        missing["log_ratio"] = "a median beyond the sign flips is not positive, or there are no channels"
    return {
        "name": name,
        "halo_median": float(np.median(a)) if len(a) else None,
        "control_median": float(np.median(b)) if len(b) else None,
        "log_ratio": None if ratio.value is None else ratio.as_json(),
        "raw_ratio": None if raw is None else float(np.exp(raw)),
        "auc": auc.as_json(),
        "n_halo": len(a),
        "n_control": len(b),
        "missing": missing,
    }


def _pooled(kind: str, sites: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean over sites, as units, of the log ratios (given as a ratio) and of the logits of the AUC."""
    logs = [site["log_ratio"]["value"] for site in sites if site["log_ratio"] is not None]
    ratio = over_units([float(np.exp(x)) for x in logs], "log").as_json()
    areas = [(site["auc"]["value"], site["n_halo"], site["n_control"]) for site in sites]
    auc = pooled_auc(areas).as_json()
    return {
        "sites": sites,
        "ratio": ratio,
        "auc": auc,
        "sites_used": len(logs),
        "sites_left_out": len(sites) - len(logs),
        "statement": statement(ratio, auc, len(logs), len(sites), _NAMES[kind]),
    }


def statement(ratio: Mapping[str, Any], auc: Mapping[str, Any], used: int, of: int, control: str) -> str:
    """The pooled ratio in words; "no difference found" where its interval holds 1.

    Where a ratio is defined in some of the sites alone, those are no fair sample: the AUC speaks for all.
    """
    if used < of:
        value, low, high, none = auc["value"], auc["low"], auc["high"], 0.5
        said = f"{value or 0:.2f} is the chance that a halo channel is the more redundant with the core"
        said += f" (against: {control})"
    else:
        value, low, high, none = ratio["value"], ratio["low"], ratio["high"], 1.0
        said = f"the halo is {value or 0:.2g} times as redundant with the core as {control}"
    if value is None:
        return f"the halo could not be compared: no site gave numbers ({control})"
    if low is None or high is None:
        return f"{said}; no interval, with {of} sites"
    reach = f"interval {low:.2g} to {high:.2g}"
    if low <= none <= high:
        measure = "AUC" if used < of else "ratio"
        return f"no difference found in redundancy, against: {control} ({measure} {value:.2g}, {reach})"
    return f"{said}, {reach}"


def _random_cores(
    name: str,
    observed: float | None,
    crossed: Sequence[Crossed],
    own: Sequence[tuple[int, int]],
    drawn: np.ndarray,
) -> dict[str, Any]:
    found = [of_crossed(item, drawn).excess for item in crossed]
    ratios = [log_ratio(e[:a], e[a:]) for e, (a, _) in zip(found, own, strict=True)]
    known = [x for x in ratios if x is not None]
    p = None
    if observed is not None and known:
        p = (1 + sum(x >= observed for x in known)) / (1 + len(known))
    entry: dict[str, Any] = {"name": name, "log_ratio": observed, "random_log_ratios": ratios, "p": p}
    if p is None:
        entry["missing"] = {"p": "a median beyond the sign flips is not positive"}
    return entry
