"""The pass on a tiny model against float64 autograd, and the section as a whole."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from tests.support.brute_force import u_and_s
from tests.support.tiny_models import tiny_model, token_blocks

from scarprune.findings.halo_controls import measure_halo, statement
from scarprune.findings.moments import Job, gather
from scarprune.findings.odd_tokens import odd_tokens
from scarprune.models.find import find_sites
from scarprune.profile.run import profile_model
from scarprune.text.blocks import Blocks


def text(count=12, length=16):
    return Blocks(token_blocks(count, length).numpy(), np.full(count, length), None, "tokens", "ids")


def test_moments_equal_those_of_autograd_in_float64():
    model, blocks = tiny_model("llama"), text()
    sites = find_sites(model)
    rows, cols = np.array([1, 5, 40]), np.array([2, 5])
    variants = ("plain", "token_weighted", "without_first_4")
    job = Job(rows, cols, variants)
    rms = {site.name: np.full(site.width, 2.0) for site in sites}
    core = {site.name: cols for site in sites}
    found = gather(model, blocks, {site.name: [job] for site in sites}, core, rms, batch=5)
    assert found.units == 12
    seen = [u_and_s(model, sites, ids)[0] for ids in blocks.ids]
    for site in sites:
        for unit in (0, 7):
            u, s = seen[unit][site.name]
            q = (u * s / 2)[:-1]
            weights = {"plain": np.ones(15), "token_weighted": 1 / (q**2).sum(1)}
            weights["without_first_4"] = (np.arange(15) >= 4).astype(float)
            for variant, w in weights.items():
                crossed = found.crossed[site.name][0][variant]
                expected = (q[:, rows] * w[:, None]).T @ q[:, cols]
                assert crossed.cross[unit] == pytest.approx(expected, rel=1e-3, abs=1e-6)
                assert crossed.first[0][unit] == pytest.approx(w @ q[:, rows], rel=1e-3, abs=1e-6)
                assert crossed.second[1][unit] == pytest.approx(w @ q[:, cols] ** 2, rel=1e-3, abs=1e-6)
                assert crossed.count[unit] == pytest.approx(w.sum(), rel=1e-3)
        every = np.array([seen[b][site.name][0] * seen[b][site.name][1] / 2 for b in range(12)])[:, :, 5] ** 2
        block, position = np.unravel_index(every.argmax(), every.shape)
        top = found.top[site.name]
        assert (top.block[1, 0], top.position[1, 0]) == (block, position)
        assert top.value[1, 0] / top.total[1] == pytest.approx(every.max() / every.sum(), rel=1e-3)


@pytest.mark.parametrize(("family", "rho"), [("llama", 0.1), ("gpt2", 0.02), ("opt", 0.9)])
def test_the_section_is_json_without_nan(family, rho):
    model, blocks = tiny_model(family), text()
    profile = profile_model(model, blocks, rho=rho, redundancy=family != "gpt2")
    measured = measure_halo(model, profile, blocks, flips=20, random_cores=2)
    json.dumps([measured.halo, odd_tokens(profile, measured, None)], allow_nan=False)
    plain = measured.halo["controls"]["variants"]["plain"]
    assert len(plain["sampled"]["sites"]) == 2
    assert plain["random_cores"]["count"] == (0 if rho == 0.9 else 2)


def test_fewer_than_8_blocks_give_a_reason():
    model, blocks = tiny_model("llama"), text(6)
    measured = measure_halo(model, profile_model(model, blocks), blocks)
    assert measured.halo["controls"] is None
    assert "8 blocks" in measured.halo["missing"]["controls"]


def test_a_site_that_does_nothing_is_left_out():
    model, blocks = tiny_model("llama"), text()
    model.model.layers[1].mlp.down_proj.weight.data.zero_()
    profile = profile_model(model, blocks, rho=0.1)
    measured = measure_halo(model, profile, blocks, flips=20, random_cores=2)
    json.dumps([measured.halo, odd_tokens(profile, measured, None)], allow_nan=False)
    assert len(measured.halo["controls"]["variants"]["plain"]["sampled"]["sites"]) == 1
    assert measured.halo["write_support"]["sites"][1]["share"] is None


def test_odd_tokens_are_shown_in_their_text():
    model, blocks = tiny_model("llama"), text()
    profile = profile_model(model, blocks, rho=0.1)
    measured = measure_halo(model, profile, blocks, flips=20, random_cores=2)
    tokenizer = SimpleNamespace(decode=lambda ids: " ".join(map(str, ids)))
    found = odd_tokens(profile, measured, tokenizer)
    assert 0 < found["flagged"] == len(found["channels"]) <= found["of"] == 8
    token = found["channels"][0]["tokens"][0]
    assert token["token"] == str(blocks.ids[token["block"], token["position"]])
    assert 0 < token["share_of_lp"] <= 1


def test_the_statement_says_what_the_interval_says():
    auc = {"value": 0.52, "low": 0.4, "high": 0.6}
    clear, doubtful = {"value": 1.9, "low": 1.6, "high": 2.2}, {"value": 1.1, "low": 0.9, "high": 1.3}
    said = statement(clear, auc, 6, 6, "others")
    assert said == "the halo is 1.9 times as redundant with the core as others, interval 1.6 to 2.2"
    assert statement(doubtful, auc, 6, 6, "others").startswith("no difference found")
    assert statement(clear, auc, 1, 6, "others").startswith("no difference found")  # a chosen few sites
    assert statement(doubtful, {**auc, "low": 0.51}, 1, 6, "others").startswith("0.52 is the chance")
