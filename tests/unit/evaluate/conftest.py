"""Plans and blocks made by hand."""

import numpy as np
import pytest

from scarprune.models.find import find_sites
from scarprune.models.fingerprint import fingerprint_model
from scarprune.plan.plan import Plan, PlannedSite
from scarprune.text.blocks import Blocks


@pytest.fixture
def plan_for():
    """``plan_for(model, seed)``: a third of the channels of each site, at random."""

    def make(model, seed=0, **options):
        rng = np.random.default_rng(seed)
        sites = tuple(
            PlannedSite(
                site.name,
                site.layer,
                site.width,
                keep=np.sort(rng.choice(site.width, site.width // 3, replace=False)),
                core=np.array([0]),
            )
            for site in find_sites(model)
        )
        options = {"score": "random", "sparsity": 2 / 3, "fingerprint": fingerprint_model(model), **options}
        return Plan(sites, **options)

    return make


@pytest.fixture
def blocks_of():
    """``blocks_of(rows)``: blocks of rows of ids, of any lengths."""

    def make(rows, **facts):
        lengths = np.array([len(row) for row in rows])
        ids = np.zeros((len(rows), lengths.max()), dtype=np.int64)
        for row, out in zip(rows, ids, strict=True):
            out[: len(row)] = row
        return Blocks(
            **{"ids": ids, "lengths": lengths, "bytes": None, "protocol": "tokens", "source": "x", **facts}
        )

    return make
