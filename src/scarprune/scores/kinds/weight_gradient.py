"""Scores from weight times weight gradient over a channel's weights; G is of the mean loss over targets."""

from collections.abc import Sequence

import numpy as np

from scarprune.profile.sums import Profile
from scarprune.scores.score import Score, Values

_LLM_PRUNER = "LLM-Pruner (arXiv 2305.11627), groups summed"


def _vector(profile: Profile, bands: Sequence[int]) -> Values:
    # Over the column v_i, W * G adds up to the sum of q: no weight gradient is needed there.
    up, down = profile.total("gradient/sum_up", bands), profile.total("sum_q")
    values = {site: np.abs(up[site]) + np.abs(down[site]) for site in up}
    for site in profile.sites:
        if site.gated:
            values[site.name] += np.abs(profile.get(site.name, "gradient/sum_gate"))
    return {site: value / profile.targets() for site, value in values.items()}


def _element1(profile: Profile, bands: Sequence[int]) -> Values:
    totals = profile.total("gradient/magnitude", bands)
    return {site: total / profile.targets() for site, total in totals.items()}


def _element2(profile: Profile, bands: Sequence[int]) -> Values:
    totals = profile.total("gradient/block_squares", bands)
    factor = profile.blocks / profile.targets() ** 2
    return {site: factor * total for site, total in totals.items()}


def _gisp(profile: Profile, bands: Sequence[int]) -> Values:
    values = _element1(profile, bands)
    return {site.name: values[site.name] / ((3 if site.gated else 2) * site.width) for site in profile.sites}


SCORES = (
    Score(
        name="llm_pruner_vector",
        formula="abs(sum W G) over gate row i, up row i and v_i, the three added; G of the mean loss",
        unit="nats per token",
        source=f"{_LLM_PRUNER}, vectorize",
        needs=("gradient/sum_gate", "gradient/sum_up", "sum_q"),
        compute=_vector,
        labels="data",
    ),
    Score(
        name="llm_pruner_element1",
        formula="sum over gate row i, up row i and v_i of abs(W G), G of the mean loss",
        unit="nats per token",
        source=f"{_LLM_PRUNER}, param_first",
        needs=("gradient/magnitude",),
        compute=_element1,
        labels="data",
        aliases=("llm_pruner",),
    ),
    Score(
        name="llm_pruner_element2",
        formula="sum over gate row i, up row i and v_i of W^2 * mean over blocks of G_b^2",
        unit="(nats per token)^2",
        source=f"{_LLM_PRUNER}, param_second",
        needs=("gradient/block_squares",),
        compute=_element2,
        labels="data",
    ),
    Score(
        name="gisp",
        formula="llm_pruner_element1 / (3 m) (gated; else 2 m), m the channels of the site",
        unit="nats per token",
        source="GISP, grad_sp_global.py, one shot; ranks a site as llm_pruner_element1 does",
        needs=("gradient/magnitude",),
        compute=_gisp,
        labels="data",
    ),
)
