"""The protocol of arXiv 2604.23475 in one go: profile, redundancy and every score, as its code has them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scarprune.errors import TextError
from scarprune.findings.core_moments import CoreMoments, core_moments
from scarprune.models.find import find_sites
from scarprune.paper.baselines import paper_baselines
from scarprune.paper.padded import mean_outputs, pad, see
from scarprune.paper.redundancy import published_protection, published_redundancy
from scarprune.paper.texts import PaperReading, paper_texts
from scarprune.profile.run import profile_model
from scarprune.profile.sums import Profile
from scarprune.scores.core import profile_core
from scarprune.scores.halo import halo
from scarprune.scores.score import Values, score
from scarprune.text.blocks import Blocks

# Of the registry: the paper's own formulas once the sums are its own; and two that show what its padding
# changes (wanda) and what its other core would have been (activation_power).
_FROM_SUMS = ("loss_proxy", "weight_norm", "random", "wanda", "activation_power")
KEEP_CORE = ("loss_proxy", "scar_prot", "scar_conn")


@dataclass
class PaperMeasured:
    """What the paper's protocol gives of one model.

    Attributes:
        texts: the lines that were measured on.
        few: those of them that the redundancy was measured on, cut shorter.
        profile: pass 1 over ``texts`` with mean losses.
        moments: of q over ``few``, by site, with the core.
        red: redundancy with the core, with the epsilon: site name -> [m].
        scores: name -> values.
        missing: name of a score -> why there is none.
    """

    texts: Blocks
    few: Blocks
    profile: Profile
    moments: Mapping[str, CoreMoments]
    red: Values
    scores: dict[str, Values]
    missing: dict[str, str]


def measure_as_published(
    model: Any,
    tokenizer: Any,
    source: str,
    reading: PaperReading = PaperReading(),
    *,
    field: str = "text",
    signed: bool = True,
    seed: int = 0,
    hessians: bool = True,
) -> PaperMeasured:
    """Measure ``model`` on the first lines of ``source`` as the code of arXiv 2604.23475 does.

    Args:
        reading: sizes; the defaults are the paper's.
        signed: whether positive correlations alone are redundancy (its Llama-3.1 configurations).
        seed: of the random score.
        hessians: also ``paper_sparsegpt``, which takes several more passes and m^2 numbers a network.

    The write support is that of ``method`` 4, K = round(d / 16): the paper's 256 at its d of 4096.
    """
    reading = reading.within(model)
    texts = paper_texts(source, tokenizer, reading.texts, reading.length, field)
    few = paper_texts(source, tokenizer, reading.redundancy_texts, reading.redundancy_length, field)
    profile = profile_model(model, texts, redundancy=False, mean_loss=True, seed=seed)
    core = profile_core(profile)
    moments = core_moments(model, few, core, mean_loss=True)
    count = int(few.lengths.sum())
    red = {
        name: published_redundancy(found, core[name], count, signed=signed) for name, found in moments.items()
    }
    scores = {name: score(profile, name, seed=seed) for name in _FROM_SUMS}
    scores |= scar_scores(profile, red)
    missing = {}
    sites = find_sites(model)
    try:
        padded = pad(texts, tokenizer, reading.length)
        scores |= paper_baselines(model, sites, see(model, sites, padded, hessians=hessians), padded)
    except TextError as error:
        missing["baselines"] = str(error)
    if not hessians:
        missing["paper_sparsegpt"] = "left out as asked"
    scores["paper_act_l2"] = mean_outputs(model, sites, texts)
    return PaperMeasured(texts, few, profile, moments, red, scores, missing)


def scar_scores(profile: Profile, red: Mapping[str, np.ndarray]) -> dict[str, Values]:
    """``scar_prot`` and ``scar_conn`` with the redundancies ``red`` [m] by site, ties as published."""
    core, conn = profile_core(profile), profile.total("conn")
    prot: Values = {}
    mixed: Values = {}
    for name, lp in score(profile, "loss_proxy").items():
        factors = published_protection(red[name], conn[name], halo(conn[name], core[name]))
        prot[name] = lp * factors
        mixed[name] = lp * ((1 - conn[name]) + conn[name] * factors)
    return {"scar_prot": prot, "scar_conn": mixed}
