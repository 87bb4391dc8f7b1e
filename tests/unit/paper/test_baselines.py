"""Each ``paper_`` score by a direct computation from what the padded texts put through the projections."""

import numpy as np
import pytest
import torch

from scarprune.errors import TextError
from scarprune.models.find import find_sites
from scarprune.paper.baselines import paper_baselines
from scarprune.paper.padded import mean_outputs, pad, see
from scarprune.text.blocks import Blocks
from support.tiny_models import tiny_model

LENGTHS = (5, 11, 3, 8)
PADDED = 12


class Tokenizer:
    pad_token_id, eos_token_id, padding_side = None, 2, "right"


def _texts():
    rng = np.random.default_rng(0)
    ids = np.zeros((len(LENGTHS), max(LENGTHS)), dtype=np.int64)
    for row, size in enumerate(LENGTHS):
        ids[row, :size] = rng.integers(3, 96, size)
    return Blocks(ids, np.array(LENGTHS), None, "paper", "test")


def _captured(model, ids, mask):
    """Inputs and outputs [texts, tokens, ...] in float64 of gate, up and down of every layer."""
    seen, handles = {}, []
    for name, module in model.named_modules():
        if name.endswith(("gate_proj", "up_proj", "down_proj")):
            handles.append(
                module.register_forward_hook(
                    lambda m, a, y, name=name: seen.update({name: (a[0].double(), y.double())})
                )
            )
    with torch.no_grad():
        model(input_ids=ids, attention_mask=mask)
    for handle in handles:
        handle.remove()
    return {name: (x.numpy(), y.numpy()) for name, (x, y) in seen.items()}


@pytest.fixture(scope="module")
def both():
    model, texts = tiny_model("llama"), _texts()
    padded = pad(texts, Tokenizer, PADDED)
    sites = find_sites(model)
    found = paper_baselines(model, sites, see(model, sites, padded), padded)
    weights = {n: p.detach().double().numpy() for n, p in model.named_parameters()}
    return found, _captured(model, padded.ids, padded.mask), weights


def _parts(both, layer=1):
    _, seen, weights = both
    base = f"model.layers.{layer}.mlp."
    return [(*seen[base + p], weights[f"{base}{p}.weight"]) for p in ("gate_proj", "up_proj", "down_proj")]


def _found(both, name, layer=1):
    return both[0][name][f"model.layers.{layer}.mlp.down_proj"]


def _norms(x):
    return np.sqrt((x**2).sum((0, 1)) / len(x))


def test_padding_is_counted():
    padded = pad(_texts(), Tokenizer, PADDED)
    assert padded.ids.shape == (4, 12)
    assert padded.ids[0].tolist()[5:] == [2] * 7
    assert padded.mask.sum(1).tolist() == list(LENGTHS)
    assert padded.tokens == 48


def test_padding_on_the_left_and_without_a_token_for_it():
    class Left(Tokenizer):
        pad_token_id, padding_side = 7, "left"

    class Neither(Tokenizer):
        eos_token_id = None

    padded = pad(_texts(), Left, PADDED)
    assert padded.ids[2].tolist() == [7] * 9 + _texts().ids[2, :3].tolist()
    with pytest.raises(TextError, match="neither a pad token"):
        pad(_texts(), Neither, PADDED)


def test_paper_wanda(both):
    (x, _, gate), (_, _, up), (u, _, down) = _parts(both)
    expected = (abs(gate) * _norms(x)).sum(1) + (abs(up) * _norms(x)).sum(1) + (abs(down) * _norms(u)).sum(0)
    np.testing.assert_allclose(_found(both, "paper_wanda"), expected, rtol=1e-5)


def test_paper_owl(both):
    def boosted(weights, n):
        z = (n - n.mean()) / n.std(ddof=1)
        return abs(weights) * n * (1 + np.minimum(abs(z), 10) / 10)

    (x, _, gate), (_, _, up), (u, _, down) = _parts(both)
    expected = boosted(gate, _norms(x)).sum(1) + boosted(up, _norms(x)).sum(1)
    expected += boosted(down, _norms(u)).sum(0)
    np.testing.assert_allclose(_found(both, "paper_owl"), expected, rtol=1e-5)


def test_paper_ria(both):
    def z(weights, n):
        importance = abs(weights) * n
        scored = (importance - importance.mean()) / importance.std(ddof=1)
        return scored - scored.min() + 1e-6

    (x, _, gate), (_, _, up), (u, _, down) = _parts(both)
    expected = z(gate, _norms(x)).sum(1) + z(up, _norms(x)).sum(1) + z(down, _norms(u)).sum(0)
    np.testing.assert_allclose(_found(both, "paper_ria"), expected, rtol=1e-4)


def test_paper_sparsegpt(both):
    def diagonal(x):
        flat = x.reshape(-1, x.shape[-1])
        h = flat.T @ flat / len(flat)
        return np.diag(np.linalg.inv(h + 0.01 * np.diag(h).mean() * np.eye(len(h)))) + 1e-10

    (x, _, gate), (_, _, up), (u, _, down) = _parts(both)
    expected = (gate**2 / diagonal(x)).sum(1) + (up**2 / diagonal(x)).sum(1) + (down**2 / diagonal(u)).sum(0)
    np.testing.assert_allclose(_found(both, "paper_sparsegpt"), expected, rtol=1e-3)


def test_paper_llm_pruner_has_no_gradient(both):
    (_, g, gate), (_, y, up), (_, _, down) = _parts(both)
    expected = abs(g).mean((0, 1)) * abs(gate).sum(1) + abs(y).mean((0, 1)) * abs(up).sum(1)
    np.testing.assert_allclose(_found(both, "paper_llm_pruner"), expected + abs(down).sum(0), rtol=1e-5)


def test_paper_slimllm(both):
    def norm(y):
        return np.linalg.norm(y, axis=1).mean(0)

    (_, g, gate), (_, y, up), (_, _, down) = _parts(both)
    expected = norm(g) * abs(gate).sum(1) + norm(y) * abs(up).sum(1) + abs(down).sum(0)
    np.testing.assert_allclose(_found(both, "paper_slimllm"), expected, rtol=1e-5)


def test_paper_flap_prefers_what_does_not_vary(both):
    def steady(y):
        return abs(y.mean((0, 1))) / (np.sqrt(y.var((0, 1)) + 1e-6) + 1e-6)

    (_, g, _), (_, y, _), (_, _, down) = _parts(both)
    np.testing.assert_allclose(
        _found(both, "paper_flap"), steady(g) + steady(y) + abs(down).sum(0), rtol=1e-3
    )


def test_paper_act_l2_is_of_signed_means_without_padding():
    model, texts = tiny_model("llama"), _texts()
    sites = find_sites(model)
    found = mean_outputs(model, sites, texts)
    means = []
    for row, size in zip(texts.ids, LENGTHS, strict=True):
        ids = torch.from_numpy(row[None, :size])
        seen = _captured(model, ids, torch.ones_like(ids))
        means.append(seen["model.layers.0.mlp.up_proj"][1][0].mean(0))
    np.testing.assert_allclose(found[sites[0].name], np.linalg.norm(means, axis=0), rtol=1e-5)


@pytest.mark.parametrize("family", ["phi3", "gpt2", "opt"])
def test_fused_transposed_and_plain_networks(family):
    model, texts = tiny_model(family), _texts()
    padded, sites = pad(texts, Tokenizer, PADDED), find_sites(model)
    found = paper_baselines(model, sites, see(model, sites, padded), padded)
    assert len(found) == 7
    for values in found.values():
        assert all(np.isfinite(values[site.name]).all() for site in sites)
    if family == "phi3":  # its gate is the first half of one matrix's output
        y = []
        handle = model.model.layers[0].mlp.gate_up_proj.register_forward_hook(lambda m, a, o: y.append(o))
        model(input_ids=padded.ids, attention_mask=padded.mask)
        handle.remove()
        rows = abs(model.model.layers[0].mlp.gate_up_proj.weight.detach().numpy()).sum(1)
        terms = (y[0].detach().abs().mean((0, 1)).numpy() * rows).reshape(2, -1).sum(0)
        down = abs(model.model.layers[0].mlp.down_proj.weight.detach().numpy()).sum(0)
        np.testing.assert_allclose(found["paper_llm_pruner"][sites[0].name], terms + down, rtol=1e-4)
