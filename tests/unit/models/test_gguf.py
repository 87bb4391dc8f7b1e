"""A tiny Llama as a GGUF file, written with the package gguf from weights made here."""

import numpy as np
import pytest
import torch

from scarprune.errors import ArtifactError, UnsupportedModelError
from scarprune.models import gguf as gguf_files
from scarprune.models.find import find_sites
from scarprune.models.load import load_model
from scarprune.models.source import origin_of
from scarprune.models.supports import refuse_cut
from support.tiny_models import tiny_model, token_blocks

HEADS, KEY_HEADS, HEAD = 4, 2, 8
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def _interleaved(weight, heads):
    """Rows of each head in the order of llama.cpp's rotary embedding: pairs side by side."""
    return weight.reshape(heads, 2, HEAD // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path, model, quantized=None):
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(48)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_rope_dimension_count(HEAD)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(96)
    tokens = ["<unk>", "<s>", "</s>", "▁", *(chr(ord("a") + i) for i in range(92))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 96)
    writer.add_token_types([2, 3, 3] + [1] * 93)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, tensor in model.state_dict().items():
        stored, values = _stored(name), tensor.numpy()
        if stored.endswith(("attn_q.weight", "attn_k.weight")):
            values = _interleaved(values, HEADS if "attn_q" in stored else KEY_HEADS)
        if quantized is not None and values.ndim == 2 and values.shape[1] % 32 == 0:
            raw = gguf.quants.quantize(values, quantized)
            writer.add_tensor(stored, raw, raw_shape=raw.shape, raw_dtype=quantized)
        else:
            writer.add_tensor(stored, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _stored(name):
    top = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in top:
        return top[name]
    _, _, layer, module = name.removesuffix(".weight").split(".", 3)
    return f"blk.{layer}.{NAMES[module]}.weight"


@pytest.fixture(scope="module")
def dense():
    return tiny_model("llama", rms_norm_eps=1e-6)


@pytest.fixture(scope="module")
def path(tmp_path_factory, dense):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path, dense)
    return path


def test_a_gguf_file_is_the_model_it_was_written_from(path, dense):
    model, _ = load_model(path)
    assert model.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(model(token_blocks()).logits, dense(token_blocks()).logits)
    assert [(site.name, site.width, site.hidden) for site in find_sites(model)] == [
        ("model.layers.0.mlp.down_proj", 48, 32),
        ("model.layers.1.mlp.down_proj", 48, 32),
    ]
    assert origin_of(model).gguf


def test_its_tokenizer_comes_along(path):
    _, tokenizer = load_model(path)
    assert tokenizer.bos_token_id == 1
    assert tokenizer.encode("cab", add_special_tokens=False) == [3, 6, 4, 5]


def test_quantized_blocks_are_unpacked_and_forgotten(tmp_path, dense):
    gguf = pytest.importorskip("gguf")
    write_gguf(tmp_path / "tiny.gguf", dense, gguf.GGMLQuantizationType.Q8_0)
    model, _ = load_model(tmp_path / "tiny.gguf")
    weight, original = (m.model.layers[0].mlp.up_proj.weight for m in (model, dense))
    assert not torch.equal(weight, original)
    blocks = original.detach().reshape(-1, 32)  # Q8_0: 32 numbers share one scale, kept as float16
    step = blocks.abs().amax(1, keepdim=True) / 127
    allowed = (0.5 + 127 * 2**-11) * step
    assert bool(((weight.reshape(-1, 32) - blocks).abs() <= allowed).all())
    assert "quantization_config" not in model.config.to_dict()
    assert getattr(model, "hf_quantizer", None) is None
    refuse_cut(model)


def test_what_was_loaded_saves_as_a_plain_checkpoint(path, dense, tmp_path):
    model, _ = load_model(path)
    model.save_pretrained(tmp_path)
    again, _ = load_model(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(again(token_blocks()).logits, dense(token_blocks()).logits)


def test_a_dtype_may_be_asked_for(path):
    assert load_model(path, "bfloat16")[0].dtype == torch.bfloat16


@pytest.mark.parametrize("keep", [0, 100, 30_000])
def test_an_empty_or_truncated_file_is_named(path, tmp_path, keep):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ArtifactError, match=r"broken\.gguf could not be loaded"):
        load_model(broken)


def test_the_missing_package_is_named(path, monkeypatch):
    monkeypatch.setattr(gguf_files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedModelError, match=r"package gguf.*is missing.*scarprune\[gguf\]"):
        load_model(path)


def test_the_package_is_left_as_it_was(path):
    gguf = pytest.importorskip("gguf")
    before = gguf.GGUFReader, gguf.get_tensor_name_map
    load_model(path)
    assert (gguf.GGUFReader, gguf.get_tensor_name_map) == before
