"""Streamed models: called as ever, from files or CPU memory; refused where files hold something else."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from scarprune.errors import ArgumentError, ArtifactError
from scarprune.evaluate.perplexity import perplexity
from scarprune.models.fingerprint import fingerprint_model
from scarprune.models.load import load_model
from scarprune.models.streamed import present, stream, streamed_of
from scarprune.text.blocks import Blocks
from support.tiny_models import TINY_FAMILIES, tiny_model

IDS = torch.randint(3, 90, (2, 20), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_every_family_computes_the_same_from_its_files(family: str, tmp_path: Path) -> None:
    tiny_model(family).save_pretrained(tmp_path)
    for dtype in ("float32", "bfloat16"):
        whole, streamed = (load_model(tmp_path, dtype, streamed=streamed)[0] for streamed in (False, True))
        layers = streamed_of(streamed)
        assert layers is not None
        assert all(p.is_meta for layer in layers.layers for p in layer.parameters())
        with torch.no_grad():
            assert torch.equal(whole(input_ids=IDS).logits, streamed(input_ids=IDS).logits)
        assert fingerprint_model(streamed) == fingerprint_model(whole)


def test_perplexity_is_that_of_the_whole_model() -> None:
    blocks = Blocks(IDS.numpy(), np.full(2, 20), None, "tokens", "random")
    whole = perplexity(tiny_model("gpt2"), blocks)
    streamed = perplexity(stream(tiny_model("gpt2"), torch.device("cpu")), blocks)
    assert np.array_equal(whole.block_nats, streamed.block_nats)


def test_weights_are_there_while_a_layer_is_held() -> None:
    whole = tiny_model("llama")
    expected = whole.model.layers[1].mlp.up_proj.weight.detach().clone()
    model = stream(whole, torch.device("cpu"))
    with present(model, 1):
        assert torch.equal(model.model.layers[1].mlp.up_proj.weight, expected)
    assert model.model.layers[1].mlp.up_proj.weight.is_meta


def test_a_tensor_that_is_not_in_the_files_is_named(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"model\.layers\.1\.mlp\.up_proj\.weight is missing"):
        load_model(tmp_path, streamed=True)


def test_a_file_that_shrinks_is_noticed(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    model, _ = load_model(tmp_path, streamed=True)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:2000])
    with torch.no_grad(), pytest.raises(ArtifactError, match="shorter than it was"):
        model(input_ids=IDS)
    file.unlink()
    with torch.no_grad(), pytest.raises(ArtifactError, match="cannot be read"):
        model(input_ids=IDS)


def test_quantized_weights_are_refused(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(Exception, match="quantized, and cannot be streamed"):
        load_model(tmp_path, streamed=True)


def test_one_device_alone() -> None:
    with pytest.raises(ArgumentError, match="one device"):
        load_model("demo", device_map="auto", streamed=True)
