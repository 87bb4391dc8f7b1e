"""Other cores and supports by a full sort and numpy's correlations, from autograd's q."""

import numpy as np
import pytest

from scarprune.findings.sensitivity_of_core import sensitivity_of_core
from scarprune.models.find import find_sites
from scarprune.profile.run import profile_model
from scarprune.text.blocks import Blocks
from support.brute_force import u_and_s
from support.tiny_models import tiny_model, token_blocks


def _halo(down, core, size, eta=0.1):
    written = abs(down[:, core]).sum(1)
    support = sorted(range(len(written)), key=lambda h: (-written[h], h))[:size]
    conn = abs(down[support]).sum(0) / abs(down).sum(0)
    rest = sorted(set(range(down.shape[1])) - set(core), key=lambda i: (-conn[i], i))
    cut = max(1, int(eta * len(rest)))
    return rest[:cut], rest[cut:]


def test_each_choice_by_brute_force():
    model = tiny_model("llama", intermediate_size=200)
    blocks = Blocks(token_blocks(8).numpy(), np.full(8, 16), None, "tokens", "ids")
    profile = profile_model(model, blocks)  # core of 2, K = 2
    sites = find_sites(model)
    rows = {
        (r["rho"], r["support_size"], r["statistic"]): r
        for r in sensitivity_of_core(model, sites, profile, blocks)
    }
    assert len(rows) == 12
    seen = [u_and_s(model, sites, ids)[0] for ids in blocks.ids]
    for rho, k, size in ((0.02, 4, 2), (0.005, 1, 2), (0.01, 2, 4), (0.01, 2, 1)):
        logs, same = [], []
        for site in sites:
            q = np.concatenate([(u * s)[:-1] for one in seen for u, s in [one[site.name]]])
            core = sorted((q**2).sum(0).argsort()[-k:].tolist())
            down = model.get_submodule(site.name).weight.detach().numpy()
            inside, rest = _halo(down, core, size)
            r = np.minimum(abs(np.corrcoef(q.T)[:, core]), 0.9999)
            red = (-0.5 * np.log(1 - r**2)).mean(1)  # of 5 at most, as no core here is larger
            logs.append(np.log(np.median(red[inside]) / np.median(red[rest])))
            usual = _halo(down, sorted((q**2).sum(0).argsort()[-2:].tolist()), 2)[0]
            same.append(len(set(inside) & set(usual)) / len(set(inside) | set(usual)))
        row = rows[rho, size, "top5_unsigned"]
        assert row["ratio"]["value"] == pytest.approx(np.exp(np.mean(logs)), rel=2e-3)
        assert row["halo_jaccard_with_default"] == pytest.approx(np.median(same))
