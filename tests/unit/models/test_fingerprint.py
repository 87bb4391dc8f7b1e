import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from scarprune.models.fingerprint import fingerprint_folder, fingerprint_model, positions, to_bfloat16
from scarprune.models.load import load_model
from support.tiny_models import TINY_FAMILIES, tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("llama")
    tiny_model("llama").save_pretrained(path)
    return path


def _copy(folder, tmp_path, change):
    path = tmp_path / "changed"
    shutil.copytree(folder, path)
    tensors = load_file(path / "model.safetensors")
    change(tensors)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return path


@pytest.mark.parametrize("model_type", TINY_FAMILIES)
def test_a_folder_and_the_same_model_in_memory_agree(model_type, tmp_path):
    model = tiny_model(model_type)
    model.save_pretrained(tmp_path)
    assert fingerprint_folder(tmp_path) == fingerprint_model(model)
    assert fingerprint_model(model.to(torch.bfloat16)) == fingerprint_folder(tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_dtype_of_loading_is_no_part_of_it(folder, dtype):
    assert fingerprint_model(load_model(folder, dtype)[0]) == fingerprint_folder(folder)


def test_the_dtype_of_storing_is_no_part_of_it_either(folder, tmp_path):
    tiny_model("llama").to(torch.bfloat16).save_pretrained(tmp_path)
    assert fingerprint_folder(tmp_path) == fingerprint_folder(folder)


def test_shards_are_no_part_of_it(folder, tmp_path):
    tiny_model("llama").save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert fingerprint_folder(tmp_path) == fingerprint_folder(folder)


def test_other_values_in_one_tensor_change_it(folder, tmp_path):
    key = "model.layers.1.mlp.up_proj.weight"
    changed = _copy(folder, tmp_path, lambda tensors: tensors[key].mul_(1.02))
    assert fingerprint_folder(changed) != fingerprint_folder(folder)


def test_other_values_in_memory_change_it_although_the_model_was_loaded(folder):
    model, _ = load_model(folder)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(1.02)
    assert fingerprint_model(model) != fingerprint_folder(folder)


def test_another_name_or_shape_changes_it(folder, tmp_path):
    def rename(tensors):
        tensors["model.layers.1.mlp.side_proj.weight"] = tensors.pop("model.layers.1.mlp.up_proj.weight")

    def transpose(tensors):
        key = "model.layers.1.self_attn.q_proj.weight"
        tensors[key] = tensors[key].reshape(16, 64)

    for number, change in enumerate((rename, transpose)):
        assert fingerprint_folder(_copy(folder, tmp_path / str(number), change)) != fingerprint_folder(folder)


def test_a_tied_output_embedding_counts_once_stored_or_not(tmp_path):
    model = tiny_model("gemma")
    model.save_pretrained(tmp_path)
    before = fingerprint_folder(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert "lm_head.weight" not in tensors
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert fingerprint_folder(tmp_path) == before == fingerprint_model(model)


def test_an_untied_output_embedding_counts(folder, tmp_path):
    changed = _copy(folder, tmp_path, lambda tensors: tensors["lm_head.weight"].mul_(1.02))
    assert fingerprint_folder(changed) != fingerprint_folder(folder)


def test_what_old_checkpoints_put_in_front_of_names_is_no_part_of_it(tmp_path):
    """GPT-2 on the hub is ``h.0...``, and keeps its attention masks [1, 1, T, T] besides."""
    tiny_model("gpt2").save_pretrained(tmp_path)
    before = fingerprint_folder(tmp_path)
    tensors = {
        k.removeprefix("transformer."): v for k, v in load_file(tmp_path / "model.safetensors").items()
    }
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 8, 8)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert fingerprint_folder(tmp_path) == before == fingerprint_model(load_model(tmp_path)[0])


def test_it_is_made_of_slices(folder, tmp_path):
    """A file of which all but the header is a hole costs no time to fingerprint."""
    header = {"wide.weight": {"dtype": "F32", "shape": [1 << 16, 1 << 16], "data_offsets": [0, 1 << 34]}}
    text = json.dumps(header).encode()
    shutil.copy(folder / "config.json", tmp_path)
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + (1 << 34))
    assert len(fingerprint_folder(tmp_path)) == 64


def test_samples_spread_over_rows_and_columns():
    at = positions(4096 * 4096)
    rows, columns = np.divmod(at, 4096)
    assert len(set(at.tolist())) == 64
    for found in (rows, columns):
        assert np.histogram(found, bins=8, range=(0, 4096))[0].min() >= 3


def test_samples_of_a_small_tensor_stay_inside_it():
    assert set(positions(3).tolist()) == {0, 1, 2}
    assert positions((1 << 40) + 7).max() < (1 << 40) + 7


def test_rounding_to_bfloat16_is_torchs():
    values = torch.cat([torch.randn(4000), torch.tensor([1.00390625, 1.01171875, 0.0, -0.0, 3e38])])
    expected = values.to(torch.bfloat16).view(torch.int16).numpy().view("<u2")
    assert np.array_equal(to_bfloat16(values.numpy()), expected)
