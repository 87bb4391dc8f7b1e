"""How the core came to be while a model was trained: from profiles of its checkpoints, without weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from scarprune.errors import ArgumentError, ArtifactError
from scarprune.models.site import Site
from scarprune.profile.sums import Profile
from scarprune.scores.core import profile_core
from scarprune.stats.concentration import share
from scarprune.stats.overlap import expected_jaccard, jaccard
from scarprune.stats.select import largest
from scarprune.stats.summary import spread

_NO_STEPS = "the checkpoints do not name their steps; births are counted in checkpoints, the first is 0"


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What a trajectory keeps of one checkpoint's profile.

    Attributes:
        name: as it is shown.
        step: optimizer steps so far; None where its name does not say.
        tokens: training tokens so far; None where its name does not say.
        sites: in layer order.
        lp: per site, sum of q^2 [m]; proportional to the loss proxy.
        power: per site, sum of u^2 [m]; proportional to the activation power.
        core: per site, ascending indices [k].
    """

    name: str
    step: int | None
    tokens: int | None
    sites: Sequence[Site]
    lp: dict[str, np.ndarray]
    power: dict[str, np.ndarray]
    core: dict[str, np.ndarray]


def snapshot(profile: Profile, name: str, step: int | None = None, tokens: int | None = None) -> Snapshot:
    """The few sums of ``profile`` that a trajectory needs, so that long ones fit in memory."""
    labels = "data" if "data" in profile.labels else "model"
    lp = profile.total("sum_q2", labels=labels)
    return Snapshot(name, step, tokens, profile.sites, lp, profile.total("sum_u2"), profile_core(profile))


def trajectory(snapshots: Sequence[Snapshot]) -> dict[str, Any]:
    """Concentration, agreement with the final checkpoint, and births of its core (``method`` 3).

    A channel is born at the first checkpoint that has it in the core, and settled at the first from which on
    no checkpoint leaves it out.

    Args:
        snapshots: of one model, in the order of training; the last is the final one.

    Raises:
        ArgumentError: no checkpoint, or steps that do not ascend.
        ArtifactError: checkpoints of different shapes or of cores of different sizes.
    """
    if not snapshots:
        raise ArgumentError("A trajectory needs at least one checkpoint.")
    final = snapshots[-1]
    for one in snapshots:
        _check_alike(one, final)
    steps = [one.step for one in snapshots]
    named = [step for step in steps if step is not None]
    known = len(named) == len(steps)
    if known and any(a > b for a, b in pairwise(named)):
        raise ArgumentError(f"The checkpoints are not in the order of training: their steps are {named}.")
    times = named if known else list(range(len(snapshots)))
    return {
        "checkpoints": [_facts(one, final) for one in snapshots],
        "births": _births(snapshots, times),
        "missing": {} if known else {"steps": _NO_STEPS},
    }


def _check_alike(one: Snapshot, final: Snapshot) -> None:
    shapes = [[(site.name, site.width, site.hidden) for site in item.sites] for item in (one, final)]
    if shapes[0] != shapes[1]:
        raise ArtifactError(
            f"{one.name} and {final.name} have different shapes: {_shape(one)} and {_shape(final)}.",
            hint="A trajectory is of checkpoints of one model.",
        )
    if any(len(one.core[name]) != len(final.core[name]) for name in final.core):
        raise ArtifactError(f"{one.name} and {final.name} were profiled with cores of different sizes.")


def _shape(one: Snapshot) -> str:
    widths = sorted({site.width for site in one.sites})
    return f"{len(one.sites)} sites of {' and '.join(map(str, widths))} channels"


def _facts(one: Snapshot, final: Snapshot) -> dict[str, Any]:
    names = [site.name for site in one.sites]
    outliers = {name: largest(one.power[name], len(one.core[name])) for name in names}
    chance = {
        "chance": float(
            np.mean([expected_jaccard(len(one.lp[n]), len(one.core[n]), len(final.core[n])) for n in names])
        )
    }
    over: dict[str, list[float | None]] = {
        "core_share": [share(one.lp[n], one.core[n]) for n in names],
        "max_over_mean": [_max_over_mean(one.lp[n]) for n in names],
        "jaccard_with_final": [jaccard(one.core[n], final.core[n]) for n in names],
        "spearman_with_final": [_spearman(one.lp[n], final.lp[n]) for n in names],
        "jaccard_activation": [jaccard(one.core[n], outliers[n]) for n in names],
    }
    summaries = {key: dict(spread(values).as_json()) for key, values in over.items()}
    summaries["jaccard_with_final"] |= chance
    summaries["jaccard_activation"] |= chance
    missing = {
        key: f"{values.count(None)} of {len(names)} sites have no loss proxy, or the same in all channels"
        for key, values in over.items()
        if None in values
    }
    facts: dict[str, Any] = {"name": one.name, "step": one.step, "tokens": one.tokens}
    return {**facts, **summaries, "missing": missing}


def _max_over_mean(values: np.ndarray) -> float | None:
    mean = float(values.mean())
    return float(values.max()) / mean if mean > 0 else None


def _spearman(a: np.ndarray, b: np.ndarray) -> float | None:
    if a.min() == a.max() or b.min() == b.max():
        return None
    return float(spearmanr(a, b).statistic)


def _births(snapshots: Sequence[Snapshot], times: Sequence[int]) -> dict[str, Any]:
    final = snapshots[-1]
    sites, born = [], []
    for site in final.sites:
        core = final.core[site.name]
        inside = np.array([np.isin(core, one.core[site.name]) for one in snapshots])  # [checkpoints, k]
        first = inside.argmax(axis=0)
        always_from = np.logical_and.accumulate(inside[::-1], axis=0)[::-1]
        settled = always_from.argmax(axis=0)
        born.extend(first.tolist())
        sites.append(
            {
                "name": site.name,
                "core": core.tolist(),
                "first_step": [times[i] for i in first],
                "settled_step": [times[i] for i in settled],
            }
        )
    counts = [{"step": time, "born": born.count(index)} for index, time in enumerate(times)]
    return {"sites": sites, "counts": counts}
