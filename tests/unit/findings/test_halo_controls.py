"""The pass on a tiny model against float64 autograd, and the section as a whole."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.support.brute_force import u_and_s
from tests.support.tiny_models import tiny_model, token_blocks

import scarprune as sp
from scarprune.errors import ArtifactError
from scarprune.findings.analyze import analyze
from scarprune.findings.halo_controls import measure_halo, statement
from scarprune.findings.moments import VARIANTS, Job, gather
from scarprune.findings.odd_tokens import odd_tokens
from scarprune.models.find import find_sites
from scarprune.profile import passes, state
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


def _gathered(model, blocks, batch, **more):
    sites = find_sites(model)
    core = {site.name: np.array([2, 5]) for site in sites}
    jobs = {
        s.name: [Job(np.array([1, 5, 40]), core[s.name], VARIANTS), Job(np.arange(3), np.array([7]))]
        for s in sites
    }
    rms = {site.name: np.full(site.width, 2.0) for site in sites}
    return gather(model, blocks, jobs, core, rms, batch, **more)


def _same(found, expected):
    for name, jobs in expected.crossed.items():
        for job, other in zip(jobs, found.crossed[name], strict=True):
            for variant, sums in job.items():
                size = np.abs(sums.cross).max()
                np.testing.assert_allclose(other[variant].cross, sums.cross, rtol=1e-4, atol=1e-5 * size)
                for a, b in zip(
                    (*other[variant].first, *other[variant].second), (*sums.first, *sums.second), strict=True
                ):
                    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())
                np.testing.assert_allclose(other[variant].count, sums.count, rtol=1e-4)
        np.testing.assert_allclose(found.top[name].value, expected.top[name].value, rtol=1e-4)
        np.testing.assert_array_equal(found.top[name].block, expected.top[name].block)
        np.testing.assert_array_equal(found.top[name].position, expected.top[name].position)
        np.testing.assert_allclose(found.top[name].total, expected.top[name].total, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_any_batch_gives_the_same_moments(family):
    model, blocks = tiny_model(family), text(37)  # 32 units, five of them of two blocks
    expected = _gathered(model, blocks, 1)
    for batch in (5, 37, "auto"):
        _same(_gathered(model, blocks, batch), expected)


def test_any_batch_gives_the_same_moments_on_the_built_in_model():
    model, tokenizer = sp.load_model("demo", dtype="float32", device="cpu")
    blocks = sp.read_blocks("demo", tokenizer, count=9, length=48)
    _same(_gathered(model, blocks, 4), _gathered(model, blocks, 1))


def test_memory_that_runs_out_halves_the_batch(monkeypatch, capsys):
    model, blocks = tiny_model("llama"), text()
    expected, original = _gathered(model, blocks, 1), passes.Run._batch

    def hungry(self, observer, kinds, rows):
        original(self, observer, kinds, rows)
        if len(rows) > 3:
            raise torch.OutOfMemoryError("no more")

    monkeypatch.setattr(passes.Run, "_batch", hungry)
    _same(_gathered(model, blocks, "auto"), expected)
    said = capsys.readouterr().err
    assert "Out of memory: going on with 3 blocks" in said
    assert "12 blocks, 192 tokens, 12 blocks at once: about" in said


def test_a_pass_that_was_broken_off_goes_on(monkeypatch, tmp_path):
    model, blocks, path = tiny_model("llama"), text(), tmp_path / "findings.json.partial"
    expected, original = _gathered(model, blocks, 4), passes.Run._batch

    def broken(self, observer, kinds, rows):
        if rows[0] == 8:
            raise KeyboardInterrupt
        original(self, observer, kinds, rows)

    monkeypatch.setattr(state.Keeper, "due", lambda self: self.path is not None)
    monkeypatch.setattr(passes.Run, "_batch", broken)
    with pytest.raises(KeyboardInterrupt):
        _gathered(model, blocks, 4, resume=path)
    monkeypatch.setattr(passes.Run, "_batch", lambda self, *a: (original(self, *a), seen.append(a[2][0])))
    seen = []
    _same(_gathered(model, blocks, 4, resume=path), expected)
    assert seen == [8]
    assert not path.exists()


def test_a_float16_overflow_is_tried_again_with_a_smaller_loss(monkeypatch):
    model, blocks = tiny_model("llama"), text()
    expected = _gathered(model, blocks, 4)
    monkeypatch.setattr("scarprune.findings.moments.first_scale", lambda model: 2.0**140)  # beyond float32
    _same(_gathered(model, blocks, 4), expected)


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


def test_a_model_of_other_weights_is_refused():
    model, blocks = tiny_model("llama"), text()
    profile = profile_model(model, blocks)
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    with pytest.raises(ArtifactError, match="of other weights"):
        analyze(profile, model=model, blocks=blocks)


def test_cores_of_one_channel_are_judged_too():
    model, blocks = tiny_model("llama"), text()
    profile = profile_model(model, blocks, rho=0.01)  # 48 channels
    measured = measure_halo(model, profile, blocks, flips=20, random_cores=2)
    json.dumps([measured.halo, odd_tokens(profile, measured, None)], allow_nan=False)
    for site in measured.halo["controls"]["variants"]["plain"]["sampled"]["sites"]:
        assert site["n_halo"] == 4  # a tenth of 47
        assert site["auc"]["value"] is not None
