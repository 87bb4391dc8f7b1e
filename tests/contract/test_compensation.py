"""Every family with every compensation: fitted, cut, saved by both ways, reloaded by stock transformers."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from scarprune.cut.compensate.apply import lacks_bias
from scarprune.cut.compensate.compensated import changed
from scarprune.cut.compensate.compensation import compensations
from scarprune.cut.compensate.job import Bounds
from scarprune.cut.prune import prune_model
from scarprune.cut.save import save_model
from scarprune.cut.stream import cut_folder
from scarprune.models.load import load_model
from support.judging import every_step_is_better
from support.odd_model import odd_model
from support.plans import random_plan
from support.texts import own_blocks
from support.tiny_models import FIXED_WIDTH, TINY_FAMILIES, tiny_model, token_blocks

CUTTABLE = [family for family in TINY_FAMILIES if family not in FIXED_WIDTH]
BOUNDS = Bounds(steps=12, tokens=128)
PROBE = token_blocks(2)


def logits(model):
    with torch.no_grad():
        return model(PROBE).logits


@pytest.mark.parametrize("name", ["bias", "ls", "refit"])
@pytest.mark.parametrize("family", CUTTABLE)
def test_from_fit_to_stock_reload(family, name, tmp_path, monkeypatch):
    every_step_is_better(monkeypatch)
    model = tiny_model(family)
    plan = random_plan(model, 24)
    added = name == "bias" and lacks_bias(model)
    report = prune_model(model, plan, name, blocks=own_blocks(model), bounds=BOUNDS)
    found = report.compensation
    json.dumps(report.as_json(), allow_nan=False)
    assert found["kept"] == name
    for site in found["sites"]:
        assert site["errors"][site["kept"]] == min(site["errors"].values())
    if not added:
        save_model(model, None, tmp_path / "out", plan=plan)
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
        assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["llama", "phi3", "opt", "gpt2"])
def test_a_folder_is_cut_with_the_new_weights_in_their_places(family, dtype, tmp_path, monkeypatch):
    every_step_is_better(monkeypatch)
    tiny_model(family).to(getattr(torch, dtype)).save_pretrained(tmp_path / "source")
    model, _ = load_model(tmp_path / "source", dtype)
    plan = random_plan(model, 24)
    cut_folder(tmp_path / "source", plan, tmp_path / "plain")
    prune_model(model, plan, "refit", blocks=own_blocks(model), bounds=BOUNDS)
    new = changed(model)
    assert new is not None
    assert new.words
    report = cut_folder(tmp_path / "source", plan, tmp_path / "out", changed=new)
    assert report.compensation["name"] == "refit"
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").eval()
    assert torch.equal(logits(again), logits(model))
    slices = load_file(tmp_path / "plain" / "model.safetensors")
    stored = load_file(tmp_path / "out" / "model.safetensors")
    differing = {key for key, values in slices.items() if not torch.equal(values, stored[key])}
    assert differing <= {key for key in stored if any(name.endswith(key) for name in new.words)}
    assert differing


@pytest.mark.parametrize("flavour", ["gated", "plain", "fused"])
def test_an_architecture_nobody_declared(flavour):
    model = odd_model(flavour)
    found = prune_model(
        model, random_plan(model, 24), "refit", blocks=own_blocks(model), bounds=BOUNDS
    ).compensation
    assert found["held_out_nats_per_token"][found["kept"]] <= found["held_out_nats_per_token"]["none"]


def test_each_is_declared_once_with_what_it_makes():
    assert [(each.name, each.steps) for each in compensations()] == [
        ("none", ()),
        ("bias", ("bias",)),
        ("ls", ("ls",)),
        ("refit", ("ls", "refit")),
    ]
