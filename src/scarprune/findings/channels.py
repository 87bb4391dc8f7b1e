"""What figures draw of single channels: the core, samples of halo and rest, and all of them binned."""

from typing import Any

import numpy as np

from scarprune.findings.resample import NO_LOSS, label_of
from scarprune.models.site import Site
from scarprune.profile.sums import Profile
from scarprune.scores.core import profile_core
from scarprune.scores.halo import halo
from scarprune.stats.select import ascending_ranks, outside

_RANKS, _BINS, _DIGITS = 60, 24, 5
_NO_CONN = "the profile holds no write overlap: profile the joined text instead of adding profiles"


def channels(
    profile: Profile, *, halo_sample: int = 48, rest_sample: int = 64, seed: int = 0
) -> dict[str, Any]:
    """By site: the loss proxy by rank, all channels of the core, samples of the others, a 2D histogram.

    Args:
        profile: of which labels are data where it has them.
        halo_sample: how many channels of the halo to draw; ``of`` says of how many.
        rest_sample: how many of those outside core and halo.
        seed: of both samples.

    ``activation_rank`` 1 is the largest; ``lp`` is in nats per target; floats have 5 significant digits.
    """
    labels, cores = label_of(profile), profile_core(profile)
    q2, u2 = profile.total("sum_q2", labels=labels), profile.total("sum_u2")
    q4 = profile.total("sum_q4", labels=labels)
    sites = []
    for site in profile.sites:
        conn = profile.get(site.name, "conn") if profile.has("conn") else None
        values = {
            "lp": 0.5 * q2[site.name] / profile.targets(),
            "activation": u2[site.name] / profile.positions(),
            "activation_rank": site.width - ascending_ranks(u2[site.name]),
            "overlap": conn,
            "n_eff": _effective_tokens(q2[site.name], q4[site.name]),
        }
        core = cores[site.name]
        ring = None if conn is None else halo(conn, core)
        rng = np.random.default_rng([seed, site.layer])
        sites.append(_site(site, values, core, ring, (halo_sample, rest_sample), rng))
    return {"labels": labels, "seed": seed, "sites": sites}


def _site(
    site: Site,
    values: dict[str, Any],
    core: np.ndarray,
    ring: np.ndarray | None,
    samples: tuple[int, int],
    rng: np.random.Generator,
) -> dict[str, Any]:
    rest = outside(core if ring is None else np.concatenate([core, ring]), site.width)
    ordered = np.sort(values["lp"])[::-1]
    total = float(ordered.sum())
    ranks = np.unique(np.geomspace(1, site.width, _RANKS).round().astype(int))
    missing = {} if total > 0 else {"cumulative": NO_LOSS}
    if ring is None:
        missing |= dict.fromkeys(("halo", "overlap"), _NO_CONN)
    return {
        "name": site.name,
        "layer": site.layer,
        "width": site.width,
        "rank": ranks.tolist(),
        "lp": _rounded(ordered[ranks - 1]),
        "cumulative": _rounded(np.cumsum(ordered)[ranks - 1] / total) if total > 0 else None,
        "core": _facts(values, core),
        "halo": None if ring is None else _sample(values, ring, samples[0], rng),
        "rest": _sample(values, rest, samples[1], rng),
        "bins": _bins(values["lp"], values["activation"]),
        "missing": missing,
    }


def _sample(
    values: dict[str, Any], indices: np.ndarray, count: int, rng: np.random.Generator
) -> dict[str, Any]:
    drawn = np.sort(rng.choice(indices, min(count, len(indices)), replace=False))
    return {**_facts(values, drawn), "of": len(indices)}


def _facts(values: dict[str, Any], indices: np.ndarray) -> dict[str, list[Any]]:
    facts: dict[str, list[Any]] = {"index": indices.tolist()}
    for key, column in values.items():
        if column is None:
            facts[key] = [None] * len(indices)
        else:
            facts[key] = column[indices].tolist() if column.dtype.kind == "i" else _rounded(column[indices])
    return facts


def _effective_tokens(q2: np.ndarray, q4: np.ndarray) -> np.ndarray:
    """n_eff = (sum q^2)^2 / sum q^4 (``method`` 2); not a number where the channel has no loss."""
    known = (q4 > 0) & (q2 > 0)
    nothing = np.full(len(q2), np.nan)
    effective: np.ndarray = np.divide(np.square(q2), q4, out=nothing, where=known)
    return effective


def _bins(lp: np.ndarray, power: np.ndarray) -> dict[str, Any]:
    """Counts [lp][activation] of all channels; zeros have no logarithm and are counted in ``left_out``."""
    known = (lp > 0) & (power > 0)
    left_out = int((~known).sum())
    if not known.any():
        return {"log10_lp_edges": [], "log10_activation_edges": [], "counts": [], "left_out": left_out}
    counts, x, y = np.histogram2d(np.log10(lp[known]), np.log10(power[known]), bins=_BINS)
    return {
        "log10_lp_edges": _rounded(x),
        "log10_activation_edges": _rounded(y),
        "counts": counts.astype(int).tolist(),
        "left_out": left_out,
    }


def _rounded(values: np.ndarray) -> list[float | None]:
    """5 significant digits; None for what is no finite number."""
    return [float(f"{x:.{_DIGITS}g}") if np.isfinite(x) else None for x in values.tolist()]
