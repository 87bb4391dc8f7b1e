"""A fresh process with stock transformers says the same as the masked dense model, or the cut is refused."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from scarprune.cut.prune import prune_model
from scarprune.cut.stream import cut_folder
from scarprune.cut.verify import (
    probe_ids,
    reference_logits,
    stock_process,
    verify_folder,
    verify_reload,
)
from scarprune.errors import ArtifactError, NumericsError
from scarprune.evaluate.masks import masked
from scarprune.models.load import load_model
from support.plans import random_plan
from support.tiny_models import tiny_model

IDS = np.arange(3, 23)


@pytest.fixture(scope="module")
def child():
    with stock_process() as process:
        yield process


@pytest.fixture
def llama(tmp_path):
    model = tiny_model("llama")
    model.save_pretrained(tmp_path / "source")
    return model, random_plan(model, 20)


def test_a_cut_folder_equals_the_masked_model(llama, tmp_path, child):
    model, plan = llama
    reference = reference_logits(model, plan, IDS)
    cut_folder(tmp_path / "source", plan, tmp_path / "out")
    difference = verify_reload(tmp_path / "out", reference, IDS, dtype="float32", child=child)
    assert 0 <= difference < 1e-5 * np.abs(reference).max()
    assert (
        verify_folder(tmp_path / "source", plan, tmp_path / "out", child=child)
        < 1e-5 * np.abs(reference).max()
    )


def test_a_model_cut_in_memory_equals_the_masked_one(llama, tmp_path, child):
    model, plan = llama
    reference = reference_logits(model, plan, IDS)
    prune_model(model, plan)
    model.save_pretrained(tmp_path / "out")
    assert verify_reload(tmp_path / "out", reference, IDS, dtype="float32", child=child) < 1e-5


def test_the_reference_is_the_masked_model(llama):
    model, plan = llama
    with torch.no_grad(), masked(model, plan):
        expected = model(torch.from_numpy(IDS)[None]).logits[0]
    np.testing.assert_allclose(reference_logits(model, plan, IDS), expected, atol=1e-6)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_bfloat16_weights_are_computed_with_in_float32(family, tmp_path, child):
    tiny_model(family).to(torch.bfloat16).save_pretrained(tmp_path / "source")
    model, _ = load_model(tmp_path / "source", dtype="bfloat16")
    plan = random_plan(model, 20)
    reference = reference_logits(model, plan, IDS)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    with torch.no_grad(), masked(model, plan):
        rough = model(torch.from_numpy(IDS)[None]).logits[0].float().numpy()
    assert np.abs(rough - reference).max() > 1e-4  # so bfloat16 arithmetic would not have passed
    cut_folder(tmp_path / "source", plan, tmp_path / "out")
    difference = verify_reload(tmp_path / "out", reference, IDS, dtype="bfloat16", child=child)
    assert difference < 1e-5 * np.abs(reference).max()


def test_a_wrong_channel_is_found_out(llama, tmp_path, child):
    model, plan = llama
    reference = reference_logits(model, plan, IDS)
    cut_folder(tmp_path / "source", plan, tmp_path / "out")
    path = tmp_path / "out" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.down_proj.weight"][:, 3] = 0
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(NumericsError, match=r"differs from the masked dense one: its logits by up to"):
        verify_reload(tmp_path / "out", reference, IDS, dtype="float32", child=child)


def test_a_folder_that_does_not_load_is_named_with_the_reason(llama, tmp_path, child):
    _, plan = llama
    cut_folder(tmp_path / "source", plan, tmp_path / "out")
    path = tmp_path / "out" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "intermediate_size": 21}))
    with pytest.raises(ArtifactError, match=r"Stock transformers could not load and run .*out"):
        verify_reload(tmp_path / "out", np.zeros((20, 96)), IDS, child=child)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "out" / "model.safetensors", metadata={"format": "pt"})
    path.write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match=r"missing keys: model\.layers\.0\.mlp\.up_proj\.weight"):
        verify_reload(tmp_path / "out", np.zeros((20, 96)), IDS, child=child)


def test_a_cut_that_verifies_itself_leaves_nothing_where_it_fails(llama, tmp_path, monkeypatch):
    _, plan = llama

    def fail(*_, **__):
        raise NumericsError("The reloaded model differs.")

    monkeypatch.setattr("scarprune.cut.stream.verify_folder", fail)
    with pytest.raises(NumericsError):
        cut_folder(tmp_path / "source", plan, tmp_path / "out", verify=True)
    assert not (tmp_path / "out").exists()


def test_probe_ids_fit_the_model():
    ids = probe_ids({"vocab_size": 50, "max_position_embeddings": 32})
    assert ids.shape == (32,)
    assert ids.max() < 50
    assert len(probe_ids({"text_config": {"vocab_size": 9}})) == 128
    np.testing.assert_array_equal(ids, probe_ids({"vocab_size": 50, "n_positions": 32}))
