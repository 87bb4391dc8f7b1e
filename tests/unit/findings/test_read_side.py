"""ReadConn by hand, and a planted reader that is found."""

import numpy as np
import pytest
import torch

from scarprune.findings.read_side import read_conn, read_side
from scarprune.models.find import find_sites
from scarprune.profile.run import profile_model
from scarprune.text.blocks import Blocks
from support.tiny_models import tiny_model, token_blocks


def _blocks():
    return Blocks(token_blocks(8).numpy(), np.full(8, 16), None, "tokens", "ids")


def test_read_conn_by_hand():
    rows = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0], [5.0, 0.0, 0.0, 5.0]])
    assert read_conn(rows, np.array([1, 3])).tolist() == pytest.approx([0.6, 0.0, 0.5])


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2"])
def test_the_formula_on_a_model(family):
    model = tiny_model(family)
    profile = profile_model(model, _blocks(), redundancy=False)
    sites = find_sites(model)
    (entry,) = read_side(model, sites, profile)["sites"]
    weights = {n: p.detach().numpy() for n, p in model.named_parameters()}
    absolute = {
        "llama": lambda: sum(abs(weights[f"model.layers.1.mlp.{p}_proj.weight"]) for p in ("gate", "up")),
        "phi3": lambda: abs(weights["model.layers.1.mlp.gate_up_proj.weight"]).reshape(2, 48, 32).sum(0),
        "gpt2": lambda: abs(weights["transformer.h.1.mlp.c_fc.weight"]).T,
    }[family]()
    support = profile.get(sites[0].name, "support")
    conn = absolute[:, support].sum(1) / absolute.sum(1)
    readers = sorted(range(48), key=lambda i: (-conn[i], i))[:4]  # floor(0.1 * 48)
    q2 = profile.total("sum_q2")[sites[1].name]
    assert entry["lp_share_of_read_halo"] == pytest.approx(q2[readers].sum() / q2.sum(), rel=1e-5)
    core = int(q2.argmax())
    assert entry["read_conn_median_core"] == pytest.approx(conn[core], rel=1e-4)
    assert entry["chance"] == 2 / 32
    assert entry["random_min"] <= entry["random_median"] <= entry["random_max"]


def test_channels_planted_to_read_the_support_are_the_read_halo():
    model = tiny_model("llama")
    profile = profile_model(model, _blocks(), redundancy=False)
    sites = find_sites(model)
    support = profile.get(sites[0].name, "support")
    planted = profile.total("sum_q2")[sites[1].name].argsort()[-4:]
    with torch.no_grad():
        for reader in ("gate_proj", "up_proj"):
            weight = getattr(model.model.layers[1].mlp, reader).weight
            for channel in planted.tolist():
                weight[channel, support] *= 1000
    found = read_side(model, sites, profile)
    q2 = profile.total("sum_q2")[sites[1].name]
    assert found["sites"][0]["lp_share_of_read_halo"] == pytest.approx(q2[planted].sum() / q2.sum())
    assert found["missing"] == {sites[1].name: "the last site has none after it"}
