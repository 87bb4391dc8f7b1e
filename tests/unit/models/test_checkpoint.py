import json

import pytest
import torch
from safetensors.torch import save_file

from scarprune.errors import ArtifactError, UnsupportedModelError
from scarprune.models.checkpoint import open_checkpoint, read_header
from support.tiny_models import tiny_model


def _bytes(header, data=b""):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


ONE = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


@pytest.fixture
def folder(tmp_path):
    tiny_model("llama").save_pretrained(tmp_path, max_shard_size="40KB")
    return tmp_path


def test_literal_bytes_are_read(tmp_path):
    header = {
        "__metadata__": {"format": "pt"},
        "b": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [8, 20]},
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    }
    path = tmp_path / "model.safetensors"
    path.write_bytes(_bytes(header, bytes(20)))
    tensors, metadata = read_header(path)
    begin = 8 + len(json.dumps(header))
    assert [(t.name, t.dtype, t.shape, t.start, t.nbytes) for t in tensors] == [
        ("a", "F32", (2,), begin, 8),
        ("b", "BF16", (2, 3), begin + 8, 12),
    ]
    assert metadata == {"format": "pt"}


def test_a_folder_in_shards(folder):
    checkpoint = open_checkpoint(folder)
    assert checkpoint.indexed
    assert checkpoint.shards == tuple(sorted(folder.glob("*.safetensors")))
    model = tiny_model("llama")
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert {name: tensor.shape for name, tensor in checkpoint.tensors.items()} == expected
    assert checkpoint.nbytes == 4 * model.num_parameters()
    assert checkpoint.dtype == "F32"
    assert checkpoint.config["model_type"] == "llama"


def test_the_dtype_is_that_of_most_bytes(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    tensors = {
        "w": torch.zeros(64, 64, dtype=torch.bfloat16),
        "norm": torch.zeros(64),
        "ids": torch.zeros(9999).long(),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    assert open_checkpoint(tmp_path).dtype == "BF16"


def _one(data=8, **changes):
    return _bytes({"a": {**ONE["a"], **changes}}, bytes(data))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty, truncated or not a safetensors file"),
        (b"\x00" * 7, "is empty, truncated or not a safetensors file"),
        (b"PK\x03\x04" + bytes(400), "is empty, truncated or not a safetensors file"),
        (_one()[:40], "is empty, truncated or not a safetensors file"),
        (_one(7), r"is truncated or damaged: it has 76 bytes and should have 77"),
        (_one(9), r"is truncated or damaged: it has 78 bytes and should have 77"),
        (_one(4, data_offsets=[0, 4]), "the bytes of a are not where its shape says"),
        (_one(12, data_offsets=[4, 12]), "the bytes of a are not where its shape says"),
        (_one(shape=[-2, -1]), "the bytes of a are not where its shape says"),
        (_one(dtype="F5"), "stores a as F5, which scarprune does not know"),
        (_bytes({"a": {"shape": [2]}}), "is damaged or not a safetensors file"),
        (_bytes({"a": 3}), "is damaged or not a safetensors file"),
        (_bytes([1, 2]), "is damaged or not a safetensors file"),
    ],
    ids=range(13),
)
def test_damaged_files_are_named(tmp_path, content, words):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=words) as caught:
        read_header(path)
    assert str(path) in str(caught.value)


def test_a_missing_shard_is_named(folder):
    second = sorted(folder.glob("*.safetensors"))[1]
    second.unlink()
    with pytest.raises(ArtifactError, match=rf"1 of \d files of weights are missing.*{second.name}"):
        open_checkpoint(folder)


def test_a_truncated_shard_is_named(folder):
    second = sorted(folder.glob("*.safetensors"))[1]
    second.write_bytes(second.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match=rf"{second.name} is truncated"):
        open_checkpoint(folder)


@pytest.mark.parametrize("name", ["ghost.weight", "model.embed_tokens.weight"])
def test_an_index_that_promises_what_a_shard_does_not_hold(folder, name):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    shard = index["weight_map"]["lm_head.weight"]
    assert index["weight_map"].get(name) != shard
    index["weight_map"][name] = shard
    path.write_text(json.dumps(index))
    with pytest.raises(ArtifactError, match=rf"its index says {name} is in {shard}, where it is not"):
        open_checkpoint(folder)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "shard.bin"])
def test_an_index_may_name_files_of_its_folder_alone(folder, name):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ArtifactError, match="is no safetensors file of this folder"):
        open_checkpoint(folder)


@pytest.mark.parametrize("text", ["{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_an_index_without_a_map(folder, text):
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ArtifactError, match="is damaged: it has no weight_map"):
        open_checkpoint(folder)


def test_a_tensor_in_two_shards(folder):
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    first, second = sorted(set(index["weight_map"].values()))[:2]
    (folder / second).write_bytes((folder / first).read_bytes())
    with pytest.raises(ArtifactError, match=f"is in {first} and in {second}|is in {second} and in {first}"):
        open_checkpoint(folder)


def test_what_is_no_model_folder(tmp_path):
    with pytest.raises(ArtifactError, match=r"There is no folder .*nowhere"):
        open_checkpoint(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match=r"is no model folder: it has no config\.json"):
        open_checkpoint(tmp_path)
    (tmp_path / "one.gguf").write_bytes(b"GGUF")
    with pytest.raises(ArtifactError, match=r"has no config\.json\. For the GGUF file in it.*one\.gguf"):
        open_checkpoint(tmp_path)
    file = tmp_path / "notes.txt"
    file.write_text("x")
    with pytest.raises(ArtifactError, match=r"notes\.txt is a file; a model is a folder"):
        open_checkpoint(file)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"it has neither model\.safetensors nor model"):
        open_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"config\.json is not a readable JSON file"):
        open_checkpoint(tmp_path)


def test_pickled_weights_are_never_opened(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"not even a pickle")
    with pytest.raises(ArtifactError, match=r"only as pytorch_model\.bin, a pickle.*save_pretrained"):
        open_checkpoint(tmp_path)


def test_an_adapter_is_no_whole_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UnsupportedModelError, match=r"holds an adapter, not a whole model.*merge_and_unload"):
        open_checkpoint(tmp_path)
