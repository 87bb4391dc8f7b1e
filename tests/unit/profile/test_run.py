"""profile_model against plain float64 autograd, one block at a time."""

import gc
import weakref

import numpy as np
import pytest
import scipy.stats
import torch
from transformers import masking_utils

from scarprune.errors import ArgumentError, ArtifactError, TextError
from scarprune.models.find import find_sites
from scarprune.profile import run as run_module
from scarprune.profile.accumulate import SumsPass
from scarprune.profile.groups import assign_groups
from scarprune.profile.loss import block_uniforms, sample
from scarprune.profile.run import profile_model
from scarprune.profile.sums import load_profile
from scarprune.text.blocks import Blocks
from support.brute_force import sums_of_blocks, u_and_s
from support.tiny_models import tiny_model


def blocks_of(ids, lengths=None, documents=None):
    lengths = np.full(len(ids), ids.shape[1]) if lengths is None else np.asarray(lengths)
    return Blocks(ids=ids, lengths=lengths, bytes=None, protocol="tokens", source="test", documents=documents)


@pytest.fixture(scope="module")
def ids():
    return np.random.default_rng(0).integers(3, 96, size=(9, 12))


def close(found, expected, rtol):
    """Within rounding: relative for what is large, absolute for signed sums that nearly cancel."""
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "phi3", "gemma2"])
def test_sums_equal_plain_autograd_in_float64(family, ids):
    model = tiny_model(family)
    lengths = np.array([12, 12, 12, 12, 7, 7, 12, 12, 12])
    profile = profile_model(model, blocks_of(ids, lengths), batch=3)
    exact = tiny_model(family).double()
    exact.load_state_dict(model.state_dict())
    sites = find_sites(exact)
    groups = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7])  # floor(8 i / 9)
    pairs = [u_and_s(exact, sites, row[:length])[0] for row, length in zip(ids, lengths, strict=True)]
    for site in sites:
        expected = sums_of_blocks([pair[site.name] for pair in pairs], groups)
        for name, value in expected.items():
            close(profile.get(site.name, name), value, 2e-5)
    assert profile.header["counts"] == {"targets": [9, 27, 53], "positions": [9, 27, 62], "blocks": 9}
    assert profile.group_targets.tolist() == [22, 11, 11, 6, 6, 11, 11, 11]


def test_no_batch_asks_the_device_what_its_masks_are(ids, monkeypatch):
    """transformers would wait for a GPU in every forward pass, to see that no block is several sequences."""
    asked = []
    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", lambda positions: asked.append(1))
    model = tiny_model("llama")
    model(torch.from_numpy(ids[:2]), use_cache=False)
    assert asked  # where transformers asks elsewhere, this shows nothing
    asked.clear()
    profile_model(model, blocks_of(ids), batch=3, extras=("gradient", "entropy"))
    assert not asked


def test_sums_of_a_float64_model_differ_by_the_float32_of_its_logits_alone(ids):
    model = tiny_model("gpt2").double()
    profile = profile_model(model, blocks_of(ids), batch=4)
    sites = find_sites(model)
    pairs = [u_and_s(model, sites, row)[0] for row in ids]
    groups = np.arange(9) * 8 // 9
    for site in sites:
        expected = sums_of_blocks([pair[site.name] for pair in pairs], groups)
        for name in ("sum_q2", "sum_q"):
            close(profile.get(site.name, name), expected[name], 2e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_squares_of_what_a_network_reads_add_up_over_batches(ids, dtype):
    model, read = tiny_model("llama").to(dtype), {}
    profile = profile_model(model, blocks_of(ids), batch=4)
    for site in find_sites(model):
        gate = model.get_submodule(site.readers[0].module)
        handle = gate.register_forward_pre_hook(
            lambda module, args, name=site.name: read.update({name: args[0]})
        )
        model(input_ids=torch.as_tensor(ids))
        handle.remove()
        expected = read[site.name].detach().double().square().sum((0, 1)).numpy()
        np.testing.assert_allclose(profile.get(site.name, "sum_x2"), expected, rtol=1e-6)


def test_gradients_are_the_slope_of_the_loss(ids):
    """sum over positions of u s is d loss / d log scale of a channel: finite differences of the loss."""
    model = tiny_model("gpt2").double()  # its norms stay in float64
    site = find_sites(model)[0]
    profile = profile_model(model, blocks_of(ids[:1]), redundancy=False)
    down = model.get_submodule(site.name)

    def loss(factor):
        scale = torch.ones(site.width, dtype=torch.float64)
        scale[5] = factor
        handle = down.register_forward_pre_hook(lambda module, args: (args[0] * scale,))
        logits = model(input_ids=torch.as_tensor(ids[:1])).logits[0, :-1]
        handle.remove()
        return torch.nn.functional.cross_entropy(logits, torch.as_tensor(ids[0, 1:]), reduction="sum").item()

    slope = (loss(1 + 1e-5) - loss(1 - 1e-5)) / 2e-5
    assert profile.get(site.name, "sum_q").sum(0)[5] == pytest.approx(slope, rel=1e-5)


def test_model_labels_are_the_sampled_tokens(ids):
    model = tiny_model("llama")
    profile = profile_model(model, blocks_of(ids), labels="both", seed=3, batch=2, redundancy=False)
    exact = tiny_model("llama").double()
    sites = find_sites(exact)
    pairs = []
    for index, row in enumerate(ids):
        with torch.no_grad():
            logits = model(input_ids=torch.as_tensor(row)[None]).logits[0, :-1]
        labels = sample(logits, block_uniforms(3, [index], 11)[0])
        pairs.append(u_and_s(exact, sites, row, labels)[0])
    for site in sites:
        expected = sums_of_blocks([pair[site.name] for pair in pairs], np.arange(9) * 8 // 9)
        for name in ("sum_q2", "sum_s", "block_G2", "groups_q2"):
            close(profile.get(site.name, name, "model"), expected[name], 2e-5)
        assert not np.allclose(profile.get(site.name, "sum_q2"), expected["sum_q2"], rtol=0.01)


def test_samples_follow_the_models_distribution():
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0]).expand(20000, 4)
    draws = block_uniforms(0, [7], 20000)[0]
    counts = np.bincount(sample(logits, draws).numpy(), minlength=4)
    expected = np.exp([0.0, 1.0, -1.0, 2.0])
    assert scipy.stats.chisquare(counts, expected / expected.sum() * 20000).pvalue > 1e-3


def test_draws_belong_to_their_block():
    together = block_uniforms(5, [3, 4], 6)
    assert torch.equal(together[1], block_uniforms(5, [4], 6)[0])
    assert not torch.equal(together[0], together[1])


def test_batch_size_changes_only_rounding(ids):
    one, four = (profile_model(tiny_model("llama"), blocks_of(ids), batch=batch) for batch in (1, 4))
    for key, array in one.tensors.items():
        np.testing.assert_allclose(array, four.tensors[key], rtol=1e-4, atol=1e-6 * np.abs(array).max())


def test_two_halves_add_up_to_the_whole(ids):
    model = tiny_model("llama")
    whole = profile_model(model, blocks_of(ids[:8]), batch=1)
    halves = [profile_model(model, blocks_of(part), batch=1) for part in (ids[:4], ids[4:8])]
    added = halves[0] + halves[1]
    for site in whole.sites:
        for name in ("sum_q2", "sum_u", "block_G2", "block_norm_u", "down_norm2", "sum_x2"):
            close(added.get(site.name, name), whole.get(site.name, name), 1e-6)
        np.testing.assert_allclose(
            added.get(site.name, "groups_q2").sum(0), whole.get(site.name, "groups_q2").sum(0), rtol=1e-5
        )
    assert added.targets() == whole.targets()
    with pytest.raises(ArtifactError, match="Adding profiles drops it"):
        added.get(added.sites[0].name, "red/top5")


def test_adding_refuses_other_weights(ids):
    one = profile_model(tiny_model("llama"), blocks_of(ids[:2]), redundancy=False)
    other = tiny_model("llama")
    with torch.no_grad():
        next(other.parameters()).mul_(2)
    with pytest.raises(ArtifactError, match="different weights"):
        _ = one + profile_model(other, blocks_of(ids[:2]), redundancy=False)


def test_the_loss_may_be_multiplied_by_a_power_of_two(ids, monkeypatch):
    plain = profile_model(tiny_model("llama"), blocks_of(ids))
    for power in (-12, 9):
        monkeypatch.setattr(run_module, "first_scale", lambda model, power=power: 2.0**power)
        scaled = profile_model(tiny_model("llama"), blocks_of(ids))
        for key, array in plain.tensors.items():
            assert np.array_equal(array, scaled.tensors[key]), key


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near_float32(dtype, ids):
    exact = profile_model(tiny_model("llama"), blocks_of(ids))
    half = profile_model(tiny_model("llama").to(dtype), blocks_of(ids))
    for site in exact.sites:
        a, b = (p.get(site.name, "sum_q2").sum(0) for p in (exact, half))
        assert abs(b.sum() / a.sum() - 1) < 0.1
        assert scipy.stats.spearmanr(a, b).statistic > 0.98


def test_nothing_is_left_on_the_model(ids):
    model = tiny_model("llama").train()
    model.requires_grad_(True)
    profile_model(model, blocks_of(ids[:2]))
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_nothing_below_the_first_site_is_computed_backwards(ids):
    model = tiny_model("llama")
    attention, seen = model.model.layers[0].self_attn.o_proj, []

    def hook(module, args, output):
        seen.append(output.requires_grad)

    handle = attention.register_forward_hook(hook)
    profile_model(model, blocks_of(ids[:2]), redundancy=False)
    handle.remove()
    assert seen
    assert not any(seen)


def test_redundancy_is_the_correlation_over_tokens(ids):
    model = tiny_model("llama").double()
    profile = profile_model(model, blocks_of(ids), rho=0.15)  # a core of 7 of 48
    sites = find_sites(model)
    pairs = [u_and_s(model, sites, row)[0] for row in ids]
    for site in sites:
        q = np.concatenate([(u * s)[:-1] for u, s in (pair[site.name] for pair in pairs)])
        core = np.sort(np.argsort(-(q**2).sum(0), kind="stable")[:7])
        r = np.array([[scipy.stats.pearsonr(q[:, i], q[:, j]).statistic for j in core] for i in range(48)])
        signed = -0.5 * np.log(1 - np.minimum(np.maximum(r, 0), 0.9999) ** 2)
        unsigned = -0.5 * np.log(1 - np.minimum(np.abs(r), 0.9999) ** 2)
        assert np.array_equal(profile.get(site.name, "red/core"), core)
        np.testing.assert_allclose(
            profile.get(site.name, "red/top5"), np.sort(signed)[:, -5:].mean(1), rtol=1e-5
        )
        np.testing.assert_allclose(
            profile.get(site.name, "red/top5_unsigned"), np.sort(unsigned)[:, -5:].mean(1), rtol=1e-5
        )
        np.testing.assert_allclose(profile.get(site.name, "red/mean"), signed.mean(1), rtol=1e-5)


def test_connection_and_weight_norms(ids):
    model = tiny_model("llama")
    profile = profile_model(model, blocks_of(ids), rho=0.15)
    captured = {}
    handle = model.model.layers[0].mlp.register_forward_pre_hook(lambda m, args: captured.update(x=args[0]))
    for row in ids:
        captured.setdefault("all", [])
        model(input_ids=torch.as_tensor(row)[None])
        captured["all"].append(captured["x"][0].detach().double().numpy())
    handle.remove()
    norm_x = np.sqrt((np.concatenate(captured["all"]) ** 2).sum(0))
    mlp, site = model.model.layers[0].mlp, profile.sites[0].name
    gate, up, down = (
        getattr(mlp, name).weight.detach().double().numpy() for name in ("gate_proj", "up_proj", "down_proj")
    )
    core = profile.get(site, "red/core")
    written = np.abs(down[:, core]).sum(1)
    support = np.sort(np.argsort(-written)[:2])  # round(32 / 16)
    assert profile.get(site, "support").tolist() == support.tolist()
    conn = np.abs(down[support]).sum(0) / np.abs(down).sum(0)
    np.testing.assert_allclose(profile.get(site, "conn"), conn, rtol=1e-5)
    np.testing.assert_allclose(profile.get(site, "gate_norm2"), np.linalg.norm(gate, axis=1), rtol=1e-5)
    np.testing.assert_allclose(profile.get(site, "down_norm2"), np.linalg.norm(down, axis=0), rtol=1e-5)
    np.testing.assert_allclose(profile.get(site, "down_norm1"), np.abs(down).sum(0), rtol=1e-5)
    np.testing.assert_allclose(profile.get(site, "wanda_gate"), np.abs(gate) @ norm_x, rtol=1e-5)
    np.testing.assert_allclose(profile.get(site, "wanda_up"), np.abs(up) @ norm_x, rtol=1e-5)


def test_saved_and_loaded_is_the_same(ids, tmp_path):
    profile = profile_model(tiny_model("gpt2"), blocks_of(ids), labels="both")
    profile.save(tmp_path / "p.safetensors")
    again = load_profile(tmp_path / "p.safetensors")
    assert again.sites == profile.sites
    assert again.labels == ("data", "model")
    assert all(np.array_equal(array, again.tensors[key]) for key, array in profile.tensors.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "truth"}, "data, model or both, not 'truth'"),
        ({"rho": 0.0}, "between 0 and 1, not 0.0"),
        ({"batch": 0}, "not 0"),
    ],
)
def test_nonsense_is_refused(ids, options, message):
    with pytest.raises(ArgumentError, match=message):
        profile_model(tiny_model("llama"), blocks_of(ids), **options)


def test_text_that_does_not_fit_is_refused(ids):
    with pytest.raises(TextError, match="96"):
        profile_model(tiny_model("llama"), blocks_of(np.full((1, 5), 96)))
    with pytest.raises(TextError, match="65"):
        profile_model(tiny_model("llama"), blocks_of(np.ones((1, 65), dtype=np.int64)))
    with pytest.raises(TextError, match="at least two tokens"):
        profile_model(tiny_model("llama"), blocks_of(np.ones((1, 1), dtype=np.int64)))


def test_groups_are_equal_runs_without_documents():
    assert assign_groups(16, None).tolist() == np.repeat(np.arange(8), 2).tolist()
    assert assign_groups(3, None).tolist() == [0, 2, 5]


def test_a_document_never_spans_two_groups_where_there_are_enough():
    first = np.repeat(np.arange(12), [5, 3, 4, 6, 2, 4, 5, 3, 4, 4, 5, 3])
    documents = np.stack([first, first], axis=1)
    groups = assign_groups(len(first), documents)
    assert sorted(set(groups.tolist())) == list(range(8))
    assert (np.diff(groups) >= 0).all()
    for document in range(12):
        assert len(set(groups[first == document].tolist())) == 1


def test_one_document_is_split_evenly():
    documents = np.zeros((16, 2), dtype=np.int64)
    assert np.bincount(assign_groups(16, documents)).tolist() == [2] * 8


def test_totals_go_with_their_observer(ids):
    """By counting references alone: on a GPU they would wait for the garbage collector.

    Nothing else stays either: what the estimate saw of a pass would keep the model for good.
    """
    model, observers = tiny_model("llama"), []
    original = SumsPass.begin

    def begin(self, *args):
        observers.append(weakref.ref(self))
        original(self, *args)

    gc.disable()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SumsPass, "begin", begin)
            profile_model(model, blocks_of(ids), redundancy=False)
        assert len(observers) >= 3  # two of the estimate
        assert not any(observer() for observer in observers)
    finally:
        gc.enable()
