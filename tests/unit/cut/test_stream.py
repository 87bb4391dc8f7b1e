"""Folder to folder: the same tensors as the cut in memory, and nothing else changed."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from scarprune.artifacts import partial_path
from scarprune.cut import shards, transfer
from scarprune.cut.prune import prune_model
from scarprune.cut.stream import cut_folder
from scarprune.errors import ArgumentError, ArtifactError, NumericsError, PlanError, UnsupportedModelError
from support.plans import random_plan
from support.tiny_models import FIXED_WIDTH, TINY_FAMILIES, tiny_model

CUTTABLE = [family for family in TINY_FAMILIES if family not in FIXED_WIDTH]


def tensors_in(folder):
    files = sorted(folder.glob("*.safetensors"))
    return {name: tensor for path in files for name, tensor in load_file(path).items()}


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


@pytest.fixture
def source(tmp_path):
    model = tiny_model("llama").to(torch.bfloat16)
    model.save_pretrained(tmp_path / "source")
    return tmp_path / "source", model, random_plan(model, 20)


@pytest.mark.parametrize("family", CUTTABLE)
def test_every_family_is_cut_as_in_memory(family, tmp_path):
    model = tiny_model(family).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "source")
    plan = random_plan(model, 20)
    report = cut_folder(tmp_path / "source", plan, tmp_path / "out")
    found = tensors_in(tmp_path / "out")
    before = tensors_in(tmp_path / "source")
    assert prune_model(model, plan) == report
    model.save_pretrained(tmp_path / "expected")
    expected = tensors_in(tmp_path / "expected")
    assert found.keys() == expected.keys() == before.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    assert config_of(tmp_path / "out") == config_of(tmp_path / "expected")


def test_sparsity_zero_gives_the_same_files_bit_for_bit(source, tmp_path):
    folder, model, _ = source
    cut_folder(folder, random_plan(model), tmp_path / "out")
    for name in ("model.safetensors", "config.json", "generation_config.json"):
        assert load(tmp_path / "out" / name) == load(folder / name)


def load(path):
    if path.suffix == ".json":
        return json.loads(path.read_text())
    return {name: tensor.view(torch.int16).tolist() for name, tensor in load_file(path).items()}


def test_shards_keep_their_names_and_the_index_is_right(source, tmp_path):
    folder, model, plan = source
    shutil.rmtree(folder)
    model.save_pretrained(folder, max_shard_size="20KB")
    cut_folder(folder, plan, tmp_path / "out")
    before = json.loads((folder / "model.safetensors.index.json").read_text())
    after = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert len(set(after["weight_map"].values())) > 1
    assert after["weight_map"] == before["weight_map"]
    found = tensors_in(tmp_path / "out")
    assert after["metadata"]["total_size"] == sum(t.numel() * 2 for t in found.values())
    assert after["metadata"]["total_parameters"] == sum(t.numel() for t in found.values())
    for name, file in after["weight_map"].items():
        assert name in load_file(tmp_path / "out" / file)


def test_files_of_at_most_so_many_bytes(source, tmp_path):
    folder, _, plan = source
    cut_folder(folder, plan, tmp_path / "out", max_shard=8000)
    cut_folder(folder, plan, tmp_path / "whole")
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert all(sum(t.numel() * 2 for t in load_file(tmp_path / "out" / f).values()) <= 8000 for f in files)
    found, expected = tensors_in(tmp_path / "out"), tensors_in(tmp_path / "whole")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    with pytest.raises(ArgumentError, match="at most 0 bytes"):
        cut_folder(folder, plan, tmp_path / "none", max_shard=0)


def test_names_without_the_base_models_prefix(tmp_path):
    model = tiny_model("gpt2", n_inner=None)
    model.save_pretrained(tmp_path / "source")
    path = tmp_path / "source" / "model.safetensors"
    short = {name.removeprefix("transformer."): tensor for name, tensor in load_file(path).items()}
    short["h.0.attn.bias"] = torch.ones(1, 1, 4, 4)  # the official files carry attention masks along
    save_file(short, path, metadata={"format": "pt"})
    plan = random_plan(model, 20)
    report = cut_folder(tmp_path / "source", plan, tmp_path / "out")
    assert report == prune_model(model, plan)
    found = tensors_in(tmp_path / "out")
    expected = model.state_dict()
    assert found.keys() == short.keys()
    for name in short.keys() - {"h.0.attn.bias"}:
        assert torch.equal(found[name], expected[f"transformer.{name}"]), name
    assert config_of(tmp_path / "out")["n_inner"] == 20


def test_a_tied_output_that_is_stored_as_well_counts_once(tmp_path):
    model = tiny_model("llama", tie_word_embeddings=True)
    model.save_pretrained(tmp_path / "source")
    path = tmp_path / "source" / "model.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "lm_head.weight": model.lm_head.weight.clone()}, path, metadata={"format": "pt"})
    plan = random_plan(model, 20)
    assert cut_folder(tmp_path / "source", plan, tmp_path / "out") == prune_model(model, plan)
    assert "lm_head.weight" in tensors_in(tmp_path / "out")


def test_widths_that_differ_are_padded(source, tmp_path):
    folder, model, _ = source
    plan = random_plan(model, 20, 12)
    with pytest.raises(PlanError, match="widths differ"):
        cut_folder(folder, plan, tmp_path / "out")
    report = cut_folder(folder, plan, tmp_path / "out", pad=True)
    assert report == prune_model(model, plan, pad=True)
    found = tensors_in(tmp_path / "out")
    assert all(
        torch.equal(found[name], tensor) for name, tensor in model.state_dict().items() if name in found
    )
    assert "8 stored channels are zeros" in (tmp_path / "out" / "README.md").read_text()


def test_saving_in_another_dtype(source, tmp_path):
    folder, model, plan = source
    report = cut_folder(folder, plan, tmp_path / "out", save_dtype="float32")
    prune_model(model, plan)
    found = tensors_in(tmp_path / "out")
    assert all(torch.equal(found[name], model.state_dict()[name].float()) for name in found)
    assert config_of(tmp_path / "out")["dtype"] == "float32"
    assert report.bytes_after == 4 * report.parameters_after


def test_other_files_travel_along_and_weights_do_not(source, tmp_path):
    folder, _, plan = source
    travelling = ["tokenizer.json", "chat_template.jinja", "LICENSE", "additional_chat_templates/tool.jinja"]
    weights = [
        "pytorch_model.bin",
        "model.gguf",
        "original/consolidated.pth",
        "onnx/model.json",
        "b.safetensors",
    ]
    staying = [*weights, "pytorch_model.bin.index.json", ".cache/x", "modeling_x.py", "scarprune-plan.json"]
    for name in travelling + staying:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"old {name}")
    cut_folder(folder, plan, tmp_path / "out")
    for name in travelling:
        assert (tmp_path / "out" / name).read_text() == f"old {name}"
    out = tmp_path / "out"
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    own = {"config.json", "generation_config.json", "model.safetensors", "README.md", "scarprune-plan.json"}
    assert files == own | set(travelling)
    written = json.loads((out / "scarprune-plan.json").read_text())
    assert written["sites"][0]["keep"] == plan.sites[0].keep.tolist()
    cut_folder(folder, plan, tmp_path / "code", trust_remote_code=True)
    assert (tmp_path / "code" / "modeling_x.py").exists()


def test_only_the_width_of_the_config_changes(source, tmp_path):
    folder, _, plan = source
    config = {**config_of(folder), "zzz": [1e-05, {"of": "mine"}], "intermediate_size": 48}
    (folder / "config.json").write_text(json.dumps(config))
    cut_folder(folder, plan, tmp_path / "out")
    after = config_of(tmp_path / "out")
    assert after == {**config, "intermediate_size": 20}
    assert list(after) == list(config)


def test_the_output_may_not_be_or_touch_the_source(source, tmp_path):
    folder, _, plan = source
    os.symlink(folder, tmp_path / "link")
    for out, message in [
        (folder, "is the source itself"),
        (tmp_path / "link", "is the source itself"),
        (folder / "in", "lies inside the source"),
        (tmp_path, "would replace the source"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            cut_folder(folder, plan, out, overwrite=True)
    assert (folder / "model.safetensors").exists()


def test_an_existing_output_is_refused_without_overwrite(source, tmp_path):
    folder, _, plan = source
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(ArtifactError, match=r"out is already there\..*--overwrite"):
        cut_folder(folder, plan, tmp_path / "out")
    assert (tmp_path / "out" / "mine").exists()
    cut_folder(folder, plan, tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out" / "mine").exists()


def test_a_plan_for_other_weights_is_refused(source, tmp_path):
    folder, _, _ = source
    with pytest.raises(PlanError, match="made for other weights"):
        cut_folder(folder, random_plan(tiny_model("llama", seed=1), 20), tmp_path / "out")
    with pytest.raises(PlanError, match="has 48 channels, not 64"):
        cut_folder(folder, random_plan(tiny_model("llama", intermediate_size=64), 20), tmp_path / "out")
    with pytest.raises(PlanError, match="there is a site it does not cover"):
        cut_folder(folder, random_plan(tiny_model("llama", num_hidden_layers=1), 20), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_truncated_file_is_refused(source, tmp_path):
    folder, _, plan = source
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ArtifactError, match="truncated"):
        cut_folder(folder, plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_architectures_fixed_widths_and_quantized_weights_are_refused(source, tmp_path):
    folder, _, plan = source
    config = config_of(folder)
    for change, message in [
        ({"model_type": "starfish"}, "'starfish' is not one of the architectures"),
        ({"model_type": "bloom"}, "bloom cannot be cut"),
        ({"quantization_config": {"quant_method": "gptq"}}, r"quantized \(gptq\)"),
        ({"model_type": "mixtral", "num_local_experts": 8}, "mixture of experts"),
    ]:
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(UnsupportedModelError, match=message):
            cut_folder(folder, plan, tmp_path / "out")


def leaves_nothing(tmp_path):
    return not (tmp_path / "out").exists() and not partial_path(tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("failure", "error"),
    [(OSError(28, "No space left on device"), ArtifactError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_a_full_disk_and_ctrl_c_leave_nothing(source, tmp_path, monkeypatch, failure, error):
    folder, _, plan = source

    def fail(*_):
        raise failure

    monkeypatch.setattr(shards, "_write_index", fail)
    with pytest.raises(error) as raised:
        cut_folder(folder, plan, tmp_path / "out", max_shard=8000)
    assert leaves_nothing(tmp_path)
    assert error is KeyboardInterrupt or "The disk is full" in str(raised.value)


def test_a_disk_that_keeps_other_bits_is_found_out(source, tmp_path, monkeypatch):
    folder, _, plan = source

    def rot(tensor, start, words):
        if tensor.name != "model.norm.weight":  # the last one in the file
            return
        with tensor.path.open("r+b") as file:
            file.seek(start)
            byte = file.read(1)
            file.seek(start)
            file.write(bytes([byte[0] ^ 1]))
        verify_piece(tensor, start, words)

    verify_piece = transfer.verify_piece
    monkeypatch.setattr(transfer, "verify_piece", rot)
    with pytest.raises(NumericsError, match="is not the slice of the source"):
        cut_folder(folder, plan, tmp_path / "out")
    assert leaves_nothing(tmp_path)


def test_torch_and_transformers_stay_out_of_the_process(source, tmp_path):
    folder, _, plan = source
    plan.save(tmp_path / "plan.json")
    program = (
        "import sys; from scarprune.cut.stream import cut_folder; from scarprune.plan.plan import load_plan;"
        f"cut_folder({str(folder)!r}, load_plan({str(tmp_path / 'plan.json')!r}), {str(tmp_path / 'out')!r});"
        "print(*{'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
    assert (tmp_path / "out" / "model.safetensors").exists()
