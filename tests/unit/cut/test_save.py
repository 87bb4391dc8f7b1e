"""A model in memory is saved as its source stored it, whole or not at all."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from scarprune.artifacts import partial_path
from scarprune.cut.prune import prune_model
from scarprune.cut.save import save_model
from scarprune.errors import ArgumentError, ArtifactError, NumericsError, PlanError
from scarprune.models.load import load_model
from scarprune.plan.plan import load_plan
from support.plans import random_plan
from support.tiny_models import tiny_model, token_blocks
from support.tokenizers import byte_level


@pytest.fixture
def source(tmp_path):
    tiny_model("llama").to(torch.bfloat16).save_pretrained(tmp_path / "source")
    return tmp_path / "source"


def dtypes(folder):
    return {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()}


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def test_stock_transformers_loads_what_was_cut(tmp_path):
    model = tiny_model("llama")
    plan = random_plan(model, 20)
    prune_model(model, plan)
    save_model(model, byte_level(), tmp_path / "out", plan=plan)
    again, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert again.config.intermediate_size == 20
    ids = token_blocks(1)
    with torch.no_grad():
        assert torch.equal(again(ids).logits, model(ids).logits)
    assert (
        AutoTokenizer.from_pretrained(tmp_path / "out")("hello")["input_ids"]
        == byte_level()("hello")["input_ids"]
    )
    assert load_plan(tmp_path / "out" / "scarprune-plan.json").keep.keys() == plan.keep.keys()
    assert (tmp_path / "out" / "generation_config.json").exists()


def test_a_model_computed_in_float32_is_saved_as_it_was_stored(source, tmp_path):
    model, _ = load_model(source, dtype="float32")
    before = load_file(source / "model.safetensors")
    report = prune_model(model, random_plan(model))
    save_model(model, None, tmp_path / "out")
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert config_of(tmp_path / "out") == config_of(source)
    assert model.dtype == torch.float32
    assert report.bytes_after == 2 * report.parameters_after


def test_each_tensor_keeps_its_own_dtype(source, tmp_path):
    path = source / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"] = tensors["model.norm.weight"].float() + 1e-4
    save_file(tensors, path, metadata={"format": "pt"})
    model, _ = load_model(source, dtype="float32")
    save_model(model, None, tmp_path / "out")
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(after["model.norm.weight"], tensors["model.norm.weight"])
    assert after["lm_head.weight"].dtype == torch.bfloat16


def test_a_dtype_that_is_asked_for(source, tmp_path):
    model, _ = load_model(source)
    plan = random_plan(model, 20)
    prune_model(model, plan)
    save_model(model, None, tmp_path / "out", plan, save_dtype="float16")
    assert dtypes(tmp_path / "out") == {torch.float16}
    assert config_of(tmp_path / "out")["dtype"] == "float16"
    with pytest.raises(ArgumentError, match="'int4' is not a dtype weights are saved in"):
        save_model(model, None, tmp_path / "other", save_dtype="int4")


def test_tied_embeddings_are_saved_once(tmp_path):
    model = tiny_model("llama", tie_word_embeddings=True)
    save_model(model, None, tmp_path / "out", save_dtype="bfloat16")
    assert "lm_head.weight" not in load_file(tmp_path / "out" / "model.safetensors")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(again.lm_head.weight, model.lm_head.weight.bfloat16())


def test_a_model_that_was_not_cut_by_the_plan_is_refused(tmp_path):
    model = tiny_model("llama")
    with pytest.raises(PlanError, match="was not cut by this plan"):
        save_model(model, None, tmp_path / "out", plan=random_plan(model, 20))
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_kept_without_overwrite(tmp_path):
    model = tiny_model("llama")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(ArtifactError, match="already there"):
        save_model(model, None, tmp_path / "out")
    save_model(model, None, tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out" / "mine").exists()


def test_the_folder_a_model_came_from_is_never_replaced(source):
    model, _ = load_model(source)
    with pytest.raises(ArgumentError, match="is the source itself"):
        save_model(model, None, source, overwrite=True)


def test_a_check_that_fails_leaves_nothing(tmp_path):
    seen = []

    def check(folder):
        seen.extend(sorted(path.name for path in folder.iterdir()))
        raise NumericsError("It differs.")

    with pytest.raises(NumericsError):
        save_model(tiny_model("llama"), None, tmp_path / "out", check=check)
    assert "model.safetensors" in seen
    assert not (tmp_path / "out").exists()
    assert not partial_path(tmp_path / "out").exists()


def test_an_odd_generation_config_does_not_stop_the_saving(tmp_path):
    model = tiny_model("llama")
    model.generation_config.temperature = 0.3
    model.generation_config.do_sample = False
    save_model(model, None, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["temperature"] == 0.3
