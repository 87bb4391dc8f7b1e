"""Plans made by hand for a model: which channels stay is drawn with a seed, no profile needed."""

from typing import Any

import numpy as np

from scarprune.models.find import find_sites
from scarprune.models.fingerprint import fingerprint_model
from scarprune.plan.plan import Plan, PlannedSite


def random_plan(model: Any, *widths: int, sparsity: float = 0.5, seed: int = 0) -> Plan:
    """A plan for ``model`` that keeps ``widths`` channels of its sites in turn; without any, all of them."""
    rng = np.random.default_rng(seed)
    sites = find_sites(model)
    planned = []
    for i, site in enumerate(sites):
        kept = widths[i % len(widths)] if widths else site.width
        keep = np.sort(rng.permutation(site.width)[:kept]).astype(np.int64)
        planned.append(PlannedSite(site.name, site.layer, site.width, keep, keep[:1]))
    allocation = "uniform" if len(set(widths)) < 2 else "global"
    return Plan(
        sites=tuple(planned),
        score="random",
        sparsity=sparsity,
        fingerprint=fingerprint_model(model),
        allocation=allocation,
        cap=None if allocation == "uniform" else 0.7,
        seed=seed,
        provenance={"text": [{"source": "novels.txt", "blocks": 8, "length": 64, "seed": 3}]},
    )
