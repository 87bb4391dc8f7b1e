"""A masked model computes what one with zeroed columns of the down projection does."""

import copy

import numpy as np
import pytest
import torch
from accelerate import cpu_offload

from scarprune.errors import PlanError
from scarprune.evaluate.masks import masked
from scarprune.models.find import find_sites
from scarprune.models.load import load_model
from scarprune.plan.plan import PlannedSite
from support.tiny_models import tiny_model

IDS = torch.arange(3, 23).reshape(2, 10)


@pytest.fixture
def model():
    return tiny_model("llama")


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def zeroed(model, *keeps):
    """The logits of a copy whose removed channels write nothing."""
    model = copy.deepcopy(model)
    for keep in keeps:
        for name, kept in keep.items():
            weight = model.get_submodule(name).weight
            removed = np.setdiff1d(np.arange(weight.shape[1]), kept)
            with torch.no_grad():
                weight[:, removed] = 0
    return logits(model)


def hooks(model):
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())


def test_removed_channels_write_nothing(model, plan_for):
    plan = plan_for(model)
    before = logits(model)
    with masked(model, plan):
        found = logits(model)
    torch.testing.assert_close(found, zeroed(model, plan.keep), rtol=0, atol=1e-6)
    assert (found - before).abs().max() > 0.1
    assert torch.equal(logits(model), before)
    assert hooks(model) == 0


def test_transposed_weights_and_flattened_inputs(plan_for):
    model = tiny_model("gpt2")
    plan = plan_for(model)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for name, keep in plan.keep.items():
            weight = copied.get_submodule(name).weight  # Conv1D: [in, out]
            weight[np.setdiff1d(np.arange(len(weight)), keep)] = 0
    with masked(model, plan):
        torch.testing.assert_close(logits(model), logits(copied), rtol=0, atol=1e-6)


def test_nested_masks_keep_what_both_keep(model, plan_for):
    outer, inner = plan_for(model, 1), plan_for(model, 2)
    with masked(model, outer):
        with masked(model, inner):
            torch.testing.assert_close(
                logits(model), zeroed(model, outer.keep, inner.keep), rtol=0, atol=1e-6
            )
        torch.testing.assert_close(logits(model), zeroed(model, outer.keep), rtol=0, atol=1e-6)
    assert hooks(model) == 0


def test_no_trace_after_an_exception(model, plan_for):
    before = logits(model)
    with pytest.raises(KeyError), masked(model, plan_for(model)):
        raise KeyError
    assert hooks(model) == 0
    assert torch.equal(logits(model), before)


def test_gradients_pass_through_kept_channels_alone(model, plan_for):
    plan = plan_for(model)
    site = find_sites(model)[0]
    with masked(model, plan):
        model(IDS).logits.sum().backward()
    up = model.get_submodule(site.readers[-1].module).weight.grad.abs().sum(1)
    assert set(np.flatnonzero(up)) <= set(plan.keep[site.name].tolist())


def test_weights_that_accelerate_moves(model, plan_for, tmp_path):
    model.save_pretrained(tmp_path)
    model, _ = load_model(tmp_path)
    plan = plan_for(model)
    expected = zeroed(model, plan.keep)
    cpu_offload(model, execution_device=torch.device("cpu"))
    with masked(model, plan):
        torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-6)
    assert hooks(model) == 0


def test_half_precision(plan_for):
    model = tiny_model("llama").to(torch.bfloat16)
    with masked(model, plan_for(model)):
        assert logits(model).dtype == torch.bfloat16


class TestRefusals:
    def test_other_widths(self, model, plan_for):
        plan = plan_for(tiny_model("llama", intermediate_size=64))
        with pytest.raises(PlanError, match="has 48 channels, not 64"), masked(model, plan):
            pass
        assert hooks(model) == 0

    def test_other_sites(self, model, plan_for):
        plan = plan_for(tiny_model("llama", num_hidden_layers=3))
        with pytest.raises(PlanError, match="belongs to another model"), masked(model, plan):
            pass

    def test_other_weights(self, model, plan_for):
        plan = plan_for(tiny_model("llama", seed=1))
        with pytest.raises(PlanError, match="made for other weights"), masked(model, plan):
            pass


def test_a_site_kept_whole(model, plan_for):
    plan = plan_for(model)
    first, *rest = plan.sites
    whole = PlannedSite(first.name, first.layer, first.width, np.arange(first.width), first.core)
    plan = type(plan)((whole, *rest), "random", 0.3, plan.fingerprint)
    with masked(model, plan):
        torch.testing.assert_close(logits(model), zeroed(model, plan.keep), rtol=0, atol=1e-6)
