"""A model cut in memory computes what the masked one computes, in every family."""

import copy

import pytest
import torch
from accelerate import cpu_offload
from transformers import AutoModelForCausalLM, Gemma3Config, Gemma3TextConfig, SiglipVisionConfig

from scarprune.cut.prune import prune_model, report_of
from scarprune.errors import ArgumentError, PlanError, UnsupportedModelError
from scarprune.evaluate.masks import masked
from scarprune.models.find import find_sites
from scarprune.models.fingerprint import fingerprint_model
from support.odd_model import odd_model
from support.plans import random_plan
from support.tiny_models import FIXED_WIDTH, HIDDEN, LAYERS, TINY_FAMILIES, WIDTH, tiny_model, token_blocks

IDS = token_blocks(2)
CUTTABLE = [family for family in TINY_FAMILIES if family not in FIXED_WIDTH]


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("family", CUTTABLE)
def test_cutting_equals_zeroing(family):
    model = tiny_model(family)
    plan = random_plan(model, 20)
    with masked(model, plan):
        expected = logits(model)
    assert (expected - logits(model)).abs().max() > 1e-3
    prune_model(model, plan)
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-5)
    assert {site.width for site in find_sites(model)} == {20}


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt_neox", "gpt2"])
def test_padding_with_zeros_equals_zeroing(family):
    model = tiny_model(family)
    plan = random_plan(model, 20, 12)
    with masked(model, plan):
        expected = logits(model)
    report = prune_model(model, plan, pad=True)
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-5)
    assert (report.width, report.padding) == (20, 8)
    assert report.achieved_sparsity == pytest.approx(1 - 32 / (2 * WIDTH))


@pytest.mark.parametrize("family", CUTTABLE)
def test_sparsity_zero_changes_no_bit(family):
    model = tiny_model(family)
    before, config = copy.deepcopy(model.state_dict()), model.config.to_dict()
    prune_model(model, random_plan(model))
    assert model.config.to_dict() == config
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize(
    ("family", "key"),
    [("llama", "intermediate_size"), ("gpt2", "n_inner"), ("opt", "ffn_dim"), ("falcon", "ffn_hidden_size")],
)
def test_only_the_configs_own_width_changes(family, key):
    model = tiny_model(family)
    before = model.config.to_dict()
    prune_model(model, random_plan(model, 20))
    assert model.config.to_dict() == {**before, key: 20}


def test_a_null_width_becomes_a_number():
    model = tiny_model("gpt2", n_inner=None)
    assert find_sites(model)[0].width == 4 * HIDDEN
    prune_model(model, random_plan(model, 20))
    assert model.config.n_inner == 20


def test_a_wrapped_language_model_is_cut_in_its_text_config():
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = Gemma3TextConfig(**sizes, vocab_size=96, num_key_value_heads=2, head_dim=8)
    vision = SiglipVisionConfig(**sizes, image_size=28, patch_size=14)
    model = AutoModelForCausalLM.from_config(Gemma3Config(text_config=text, vision_config=vision)).eval()
    plan = random_plan(model, 20)
    with masked(model, plan):
        expected = logits(model)
    prune_model(model, plan)
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-5)
    assert (model.config.text_config.intermediate_size, model.config.vision_config.intermediate_size) == (
        20,
        48,
    )


def test_modules_know_their_new_sizes():
    model = tiny_model("llama")
    prune_model(model, random_plan(model, 20))
    mlp = model.model.layers[0].mlp
    assert (mlp.gate_proj.out_features, mlp.up_proj.out_features, mlp.down_proj.in_features) == (20, 20, 20)
    assert (mlp.gate_proj.in_features, mlp.down_proj.out_features, mlp.intermediate_size) == (
        HIDDEN,
        HIDDEN,
        20,
    )
    model = tiny_model("gpt2")
    prune_model(model, random_plan(model, 20))
    mlp = model.transformer.h[0].mlp
    assert (mlp.c_fc.nf, mlp.c_fc.nx, mlp.c_proj.nf, mlp.c_proj.nx) == (20, HIDDEN, HIDDEN, 20)


def test_a_module_may_know_its_width_by_the_configs_own_name():
    model = odd_model("gated")
    sites = find_sites(model)
    ffn = model.get_submodule(sites[0].name.rpartition(".")[0])
    ffn.breadth = sites[0].width
    prune_model(model, random_plan(model, 20))
    assert (model.config.breadth, ffn.breadth) == (20, 20)


def test_weights_stay_frozen_or_not_and_the_fingerprint_changes():
    model = tiny_model("llama")
    before = fingerprint_model(model)
    model.model.layers[0].requires_grad_(False)
    prune_model(model, random_plan(model, 20))
    assert not model.model.layers[0].mlp.up_proj.weight.requires_grad
    assert model.model.layers[1].mlp.up_proj.weight.requires_grad
    assert fingerprint_model(model) != before


def test_the_report_counts_by_hand():
    model = tiny_model("llama", tie_word_embeddings=True).to(torch.bfloat16)
    numbers = sum(p.numel() for p in model.parameters())
    report = prune_model(model, random_plan(model, 20))
    lost = LAYERS * 3 * HIDDEN * (WIDTH - 20)
    assert (report.parameters_before, report.parameters_after) == (numbers, numbers - lost)
    assert (report.bytes_before, report.bytes_after) == (2 * numbers, 2 * (numbers - lost))
    assert report.widths == {f"model.layers.{i}.mlp.down_proj": 20 for i in range(LAYERS)}
    assert report.as_json()["width"] == 20


@pytest.mark.parametrize(
    ("family", "per_channel"), [("gpt_neox", 2 * HIDDEN + 1), ("gpt2", 2 * HIDDEN + 1), ("phi3", 3 * HIDDEN)]
)
def test_the_report_counts_biases_and_fused_halves(family, per_channel):
    model = tiny_model(family)
    before = sum(p.numel() for p in model.parameters())
    report = prune_model(model, random_plan(model, 20))
    assert report.parameters_before == before
    assert report.parameters_after == before - LAYERS * per_channel * (WIDTH - 20)
    assert report.parameters_after == sum(p.numel() for p in model.parameters())


def test_widths_that_differ_need_padding_and_nothing_is_touched():
    model = tiny_model("llama")
    before = fingerprint_model(model)
    with pytest.raises(PlanError, match=r"widths differ by site \(12 to 20\).*pad=True"):
        prune_model(model, random_plan(model, 20, 12))
    assert fingerprint_model(model) == before


def test_a_plan_for_other_weights_is_refused():
    plan = random_plan(tiny_model("llama", seed=1), 20)
    with pytest.raises(PlanError, match="made for other weights"):
        prune_model(tiny_model("llama"), plan)


def test_a_second_cut_by_the_same_plan_is_refused():
    model = tiny_model("llama")
    plan = random_plan(model, 20)
    prune_model(model, plan)
    with pytest.raises(PlanError, match="has 20 channels, not 48"):
        prune_model(model, plan)


def test_an_unknown_compensation_lists_what_there_is():
    model = tiny_model("llama")
    with pytest.raises(ArgumentError, match=r"no compensation 'glue'\. There is: none, bias, ls, refit"):
        prune_model(model, random_plan(model, 20), compensate="glue")


@pytest.mark.parametrize("family", FIXED_WIDTH)
def test_a_width_fixed_in_code_is_refused_with_the_reason(family):
    model = tiny_model(family)
    with pytest.raises(UnsupportedModelError, match=f"{family} cannot be cut: its code fixes"):
        prune_model(model, random_plan(model, 20))


def test_offloaded_weights_are_refused():
    model = tiny_model("llama")
    plan = random_plan(model, 20)
    cpu_offload(model, execution_device=torch.device("cpu"))
    with pytest.raises(UnsupportedModelError, match=r"is offloaded, .*scarprune cut MODEL PLAN OUT"):
        prune_model(model, plan)


def test_a_report_on_a_model_that_was_not_cut_is_refused():
    model = tiny_model("llama")
    with pytest.raises(PlanError, match=r"has 48 channels, not 20: it was not cut.*prune_model"):
        report_of(model, random_plan(model, 20))
