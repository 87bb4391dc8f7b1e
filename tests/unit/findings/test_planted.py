"""A model whose core and halo are planted: copies are found, independent channels stay at chance."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from scarprune.findings.analyze import analyze
from scarprune.profile.run import profile_model
from scarprune.text.blocks import Blocks

WIDTH, CORE, HALO, REST = 200, range(4), range(4, 23), range(23, 200)  # floor(0.1 * 196) = 19
BLOCKS, LENGTH, LAYERS = 64, 24, 3


def planted(kind):
    """Core channels write ten times as much, and to two dimensions of their own; the halo writes there too.

    ``copies``: a halo channel reads what a core channel reads, so that its q is a tenth of the core's;
    ``independent``: it reads as any other.
    """
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    model = LlamaForCausalLM(config).eval()
    for layer in model.model.layers:
        mlp, rng = layer.mlp, np.random.default_rng(0)
        down = mlp.down_proj.weight.data
        down[:, :] *= 0.3
        for core in CORE:
            down[:, core] *= 0.1
            down[core // 2, core] = 6.0
        for channel in HALO:
            core = int(rng.integers(len(CORE)))
            down[:, channel] = 0.1 * down[:, core]
            if kind == "copies":
                mlp.gate_proj.weight.data[channel] = mlp.gate_proj.weight.data[core]
                mlp.up_proj.weight.data[channel] = mlp.up_proj.weight.data[core]
    return model


@pytest.fixture(scope="module", params=["copies", "independent"])
def found(request):
    model = planted(request.param)
    ids = np.random.default_rng(1).integers(3, 96, (BLOCKS, LENGTH))
    blocks = Blocks(ids, np.full(BLOCKS, LENGTH), None, "tokens", "ids")
    profile = profile_model(model, blocks, rho=0.02)
    findings = analyze(profile, model=model, blocks=blocks, flips=100, random_cores=5)
    return request.param, findings


def test_the_planted_core_and_halo_are_found(found):
    _, findings = found
    for site in findings["sites"]:
        assert site["core"] == list(CORE)
        assert site["halo"] == list(HALO)


def test_the_core_writes_to_few_dimensions(found):
    _, findings = found
    for site in findings["halo"]["write_support"]["sites"]:
        assert site["share"] > 0.9 > site["random_high"]


def test_copies_are_redundant_and_independent_channels_at_chance(found):
    kind, findings = found
    plain = findings["halo"]["controls"]["variants"]["plain"]
    for control in ("sampled", "matched"):
        auc, said = plain[control]["auc"], plain[control]["statement"]
        if kind == "copies":
            assert [site["auc"]["value"] for site in plain[control]["sites"]] == [1.0] * LAYERS
            assert auc["value"] > 0.95
            assert auc["low"] > 0.5
            assert "is the chance that a halo channel is the more redundant" in said
        else:
            assert auc["low"] < 0.5 < auc["high"]
            assert said.startswith("no difference found")
    if kind == "copies":
        assert all(site["p"] == pytest.approx(1 / 101) for site in plain["sign_flips"]["sites"])
