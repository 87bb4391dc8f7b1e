import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from scarprune.errors import ArgumentError, ArtifactError, NumericsError, UnsupportedModelError
from scarprune.models import load
from scarprune.models.find import find_sites
from scarprune.models.fingerprint import fingerprint_folder, fingerprint_model
from scarprune.models.head import find_head
from scarprune.models.load import load_model
from scarprune.models.source import origin_of
from support.odd_model import OddForCausalLM, odd_model
from support.tiny_models import tiny_model, token_blocks
from support.tiny_wrappers import TINY_WRAPPERS, tiny_wrapper


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "llama"
    tiny_model("llama").to(torch.bfloat16).save_pretrained(path)
    return path


def _edit(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_folder_is_loaded_frozen_in_evaluation_mode_and_knows_its_origin(folder):
    model, tokenizer = load_model(folder)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert tokenizer is None
    assert origin_of(model).path == folder
    assert fingerprint_model(model) == fingerprint_folder(folder)


def test_auto_is_float32_on_a_cpu_with_the_stored_values(folder):
    model, _ = load_model(folder, device="cpu")
    stored = load_file(folder / "model.safetensors")
    assert model.dtype == torch.float32
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, stored[name].float())


def test_float32_that_does_not_fit_gives_way_to_the_checkpoints_dtype(folder, monkeypatch, capsys):
    monkeypatch.setattr(load, "available_bytes", lambda device: 100_000)  # 21,664 weights take 86,656 bytes
    model, _ = load_model(folder, device="cpu")
    assert model.dtype == torch.bfloat16
    assert "more than is free here: computing in bfloat16" in capsys.readouterr().err
    assert load_model(folder, "float32", "cpu")[0].dtype == torch.float32


def test_a_dtype_that_is_asked_for_is_obeyed(folder):
    assert load_model(folder, "float16")[0].dtype == torch.float16
    with pytest.raises(ArgumentError, match="'int8' is not a dtype"):
        load_model(folder, "int8")


def test_weights_may_be_spread_by_a_device_map(folder):
    model, _ = load_model(folder, device_map={"": "cpu"})
    with torch.no_grad():
        torch.testing.assert_close(model(token_blocks()).logits, load_model(folder)[0](token_blocks()).logits)
    with pytest.raises(ArgumentError, match="device='cpu' cannot say it as well"):
        load_model(folder, device="cpu", device_map="auto")


def test_offloaded_weights_are_measured_all_the_same(folder):
    """One layer is offloaded, as device_map="auto" does where memory is short."""
    from accelerate import cpu_offload

    from scarprune.models.weights import matrix

    model, _ = load_model(folder)
    whole = find_head(model)
    expected = whole.logits(whole.hidden(token_blocks()))
    down = find_sites(model)[1].down
    weight = matrix(model, down).clone()
    cpu_offload(model.model.layers[1])
    assert model.get_submodule(down.module).weight.is_meta
    head = find_head(model)
    assert head.chunked
    torch.testing.assert_close(head.logits(head.hidden(token_blocks())), expected)
    assert torch.equal(matrix(model, down), weight)
    assert fingerprint_model(model) == fingerprint_folder(folder)


def test_weights_that_are_not_finite_are_named(folder):
    def spoil(tensors):
        tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = float("nan")
        tensors["lm_head.weight"][0, 0] = float("-inf")

    _edit(folder, spoil)
    with pytest.raises(
        NumericsError, match=r"NaN or infinite: model\.layers\.1\.mlp\.up_proj\.weight and 1 more"
    ):
        load_model(folder)


def test_overflow_of_float16_is_told_from_damage(folder):
    _edit(folder, lambda tensors: tensors["lm_head.weight"].fill_(1e5))
    assert load_model(folder)[0].dtype == torch.float32
    with pytest.raises(NumericsError, match=r"lm_head\.weight\. They may have overflowed float16"):
        load_model(folder, "float16")


def test_a_missing_tensor_is_not_made_up(folder):
    _edit(folder, lambda tensors: tensors.pop("model.layers.0.mlp.gate_proj.weight"))
    with pytest.raises(
        ArtifactError, match=r"1 tensors of the model are not in it.*layers\.0\.mlp\.gate_proj"
    ):
        load_model(folder)


def test_weights_that_do_not_fit_the_config(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 40}))
    with pytest.raises(ArtifactError, match="could not be loaded:"):
        load_model(folder)


def test_nonsense_in_the_config(folder):
    config = json.loads((folder / "config.json").read_text())
    for nonsense in ({"num_attention_heads": "four"}, {"hidden_act": "wobble"}, {"hidden_size": None}):
        (folder / "config.json").write_text(json.dumps({**config, **nonsense}))
        with pytest.raises(ArtifactError, match=r"The model in .* could not be loaded"):
            load_model(folder)


@pytest.mark.parametrize("change", [{"model_type": "oddity2"}, {"model_type": None}])
def test_an_architecture_that_transformers_does_not_know(folder, change):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises((UnsupportedModelError, ArtifactError), match=r"does not know|could not be loaded"):
        load_model(folder)


def test_remote_code_wants_the_flag(folder):
    config = json.loads((folder / "config.json").read_text())
    auto_map = {"AutoConfig": "configuration_mine.MineConfig", "AutoModelForCausalLM": "modeling_mine.Mine"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "mine", "auto_map": auto_map}))
    (folder / "configuration_mine.py").write_text("raise SystemExit('this must not run')")
    with pytest.raises(
        UnsupportedModelError, match=r"comes with Python code of its own.*--trust-remote-code"
    ):
        load_model(folder)


def test_remote_code_runs_with_the_flag(tmp_path, monkeypatch):
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    model = odd_model()
    model.save_pretrained(tmp_path / "odd")
    path = tmp_path / "odd" / "config.json"
    config = json.loads(path.read_text()) | {"model_type": "oddity-from-afar"}
    config["auto_map"] = {"AutoConfig": "odd.OddConfig", "AutoModelForCausalLM": "odd.OddForCausalLM"}
    path.write_text(json.dumps(config))
    code = Path(inspect.getfile(OddForCausalLM)).read_text().replace('"oddity"', '"oddity-from-afar"')
    (tmp_path / "odd" / "odd.py").write_text(code)
    with pytest.raises(UnsupportedModelError, match="--trust-remote-code"):
        load_model(tmp_path / "odd")
    found, _ = load_model(tmp_path / "odd", trust_remote_code=True)
    assert type(found) is not OddForCausalLM
    with torch.no_grad():
        torch.testing.assert_close(found(token_blocks()).logits, model(token_blocks()).logits)
    assert [site.width for site in find_sites(found)] == [48, 48]


def test_experts_are_refused_before_weights_are_looked_at(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mixtral", "num_local_experts": 8}))
    with pytest.raises(UnsupportedModelError, match="'mixtral' is a mixture of experts"):
        load_model(tmp_path)


def test_an_encoder_is_no_causal_language_model(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    with pytest.raises(UnsupportedModelError, match="'vit' is not a causal language model"):
        load_model(tmp_path)


def test_an_adapter_without_peft_says_how_to_merge(tmp_path, monkeypatch):
    (tmp_path / "adapter_config.json").write_text("{}")
    monkeypatch.setattr(load.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedModelError, match=r"holds an adapter.*merge_and_unload"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", TINY_WRAPPERS)
def test_multimodal_wrappers_are_measured_in_their_language_model(name, tmp_path):
    tiny_wrapper(name).save_pretrained(tmp_path)
    model, _ = load_model(tmp_path)
    names = [f"model.language_model.layers.{layer}.mlp.down_proj" for layer in (0, 1)]
    assert [site.name for site in find_sites(model)] == names
    head = find_head(model)
    assert head.chunked
    with torch.no_grad():
        ids = token_blocks() % 90
        torch.testing.assert_close(head.logits(head.hidden(ids)), model(ids).logits)
    assert fingerprint_model(model) == fingerprint_folder(tmp_path)


def test_nothing_of_other_libraries_is_said(folder):
    """In a process of its own, since the test runner has its own stderr."""
    code = f"from scarprune.models.load import load_model; load_model({str(folder)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert (done.stdout, done.stderr) == ("", "")
