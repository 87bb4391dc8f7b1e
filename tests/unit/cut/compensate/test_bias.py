"""The bias of FLAP: what removed channels write on average."""

import numpy as np
import pytest
import torch

from scarprune.cut.compensate.job import Job
from scarprune.cut.compensate.kinds.bias import COMPENSATION
from scarprune.cut.prune import prune_model
from scarprune.cut.save import save_model
from scarprune.errors import UnsupportedModelError
from scarprune.models.find import find_sites
from scarprune.text.hold_out import hold_out
from support.judging import every_step_is_better
from support.plans import random_plan
from support.texts import random_blocks
from support.tiny_models import tiny_model


@torch.no_grad()
def means(model, fit):
    """Mean of u over the tokens of ``fit`` by site."""
    found = {}
    handles = [
        model.get_submodule(site.name).register_forward_pre_hook(
            lambda module, args, name=site.name: (
                found.update({name: args[0].double().mean(dim=(0, 1))})
                if args[0].dim() == 3
                else found.update({name: args[0].double().mean(dim=0)})
            )
        )
        for site in find_sites(model)
    ]
    model(torch.from_numpy(fit.ids))
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("family", ["gpt_neox", "gpt2", "llama"])
def test_the_bias_is_the_mean_of_what_goes(family):
    model = tiny_model(family).requires_grad_(False)
    plan = random_plan(model, 20)
    fit, held = hold_out(random_blocks(24))
    mean = means(model, fit)
    kept = []
    for found in COMPENSATION.fit(Job(model, plan, 20, fit, held)):
        name, site = found.site.name, found.site
        module = model.get_submodule(name)
        weight = module.weight.T if site.down.transposed else module.weight  # [d, m]
        gone = np.setdiff1d(np.arange(site.width), plan.keep[name])
        before = 0 if module.bias is None else module.bias
        expected = before + (weight[:, gone].double() @ mean[name][gone]).float()
        kept.append(found.facts["kept"])
        if kept[-1] == "bias":
            torch.testing.assert_close(found.weights["bias"][f"{name}.bias"], expected, rtol=1e-5, atol=1e-6)
    assert "bias" in kept


def test_a_bias_that_the_architecture_lacks_is_there_in_memory_alone(tmp_path, capsys, monkeypatch):
    every_step_is_better(monkeypatch)
    model = tiny_model("llama")
    plan = random_plan(model, 20)
    prune_model(model, plan, "bias", blocks=random_blocks(24))
    assert model.model.layers[0].mlp.down_proj.bias.shape == (32,)
    assert "LlamaForCausalLM have no bias in stock transformers" in capsys.readouterr().err
    assert not model.config.mlp_bias
    with pytest.raises(UnsupportedModelError, match=r"down_proj.bias was added, and LlamaForCausalLM has no"):
        save_model(model, None, tmp_path / "out", plan)
    assert list(tmp_path.iterdir()) == []
