"""Bounds of memory on a GPU: every way keeps the sums and stays inside; run with ``pytest -m gpu``."""

import gc
import re

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from scarprune.errors import MemoryBudgetError
from scarprune.evaluate.perplexity import perplexity
from scarprune.models.load import load_model
from scarprune.models.streamed import stream
from scarprune.profile import ways
from scarprune.profile.run import profile_model
from scarprune.runtime.size import parse_size
from scarprune.text.blocks import Blocks
from support.tiny_models import tiny_config, tiny_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
# 24 layers of 19 million weights: 1.8 GB in float32.
LARGE = {
    "vocab_size": 512,
    "hidden_size": 1024,
    "intermediate_size": 5120,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 64,
    "max_position_embeddings": 512,
}
GPU = torch.device("cuda")


def random_blocks(count, length, vocabulary=90):
    ids = np.random.default_rng(0).integers(3, vocabulary, (count, length))
    return Blocks(ids=ids, lengths=np.full(count, length), bytes=None, protocol="tokens", source="random")


def assert_close(found, expected, rtol=1e-5):
    assert found.tensors.keys() == expected.tensors.keys()
    for key, array in expected.tensors.items():
        if array.dtype.kind == "f":
            scale = np.abs(array).max()
            np.testing.assert_allclose(found.tensors[key], array, rtol=rtol, atol=rtol * scale, err_msg=key)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_neox", "phi3", "opt"])
@pytest.mark.parametrize("device_bytes", [0, 1 << 30])
def test_streamed_from_cpu_memory_gives_the_sums_of_the_whole_model(family, device_bytes, monkeypatch):
    blocks = random_blocks(12, 24)
    whole = profile_model(tiny_model(family).cuda(), blocks, batch=2, labels="both")
    choose = ways.choose_streamed

    def chosen(memory, layers, *rest):
        way = choose(memory, layers, *rest)
        layers.device_bytes = device_bytes  # where inputs of layers wait: in pinned memory, or on the GPU
        return way

    monkeypatch.setattr(ways, "choose_streamed", chosen)
    assert_close(profile_model(stream(tiny_model(family), GPU), blocks, batch=2, labels="both"), whole)


def test_many_layers_in_turn_through_two_slots():
    """Layers take longer to come than to compute: what is overwritten too early would show."""
    blocks = random_blocks(6, 64, 500)
    model = tiny_model("llama", **LARGE)
    whole = profile_model(tiny_model("llama", **LARGE).cuda(), blocks, batch=2, redundancy=False)
    streamed = stream(model, GPU)
    for _ in range(2):
        assert_close(profile_model(streamed, blocks, batch=2, redundancy=False), whole)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_streamed_from_files(dtype, tmp_path):
    blocks = random_blocks(8, 24)
    tiny_model("gemma2").save_pretrained(tmp_path)
    whole, _ = load_model(tmp_path, dtype, "cuda")
    streamed, _ = load_model(tmp_path, dtype, "cuda", streamed=True)
    assert_close(profile_model(streamed, blocks, batch=2), profile_model(whole, blocks, batch=2))
    assert perplexity(streamed, blocks).nats_per_token == pytest.approx(
        perplexity(whole, blocks).nats_per_token, rel=1e-6
    )


def peak_within(model, blocks, bound):
    gc.collect()  # what an error's traceback still held
    torch._C._cuda_clearCublasWorkspaces()  # 32 MiB for each stream of earlier tests
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    profile = profile_model(model, blocks, memory=bound)
    return profile, torch.cuda.max_memory_reserved()


def large_model():
    """Weights as a model's before its training: those of ``tiny_model`` make of a rounding 2e-4 of a sum."""
    torch.manual_seed(0)
    config = tiny_config("llama", **LARGE)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def test_bounds_are_kept_by_checkpoints_and_by_streaming(capsys):
    blocks = random_blocks(16, 512, 500)
    whole = profile_model(large_model().cuda(), blocks)

    def assert_kept(model, bound):
        capsys.readouterr()
        found, peak = peak_within(model, blocks, bound)
        batch = int(re.search(r"(\d+) blocks at once", capsys.readouterr().err)[1])
        assert peak <= parse_size(bound)
        del model
        assert_close(found, whole, 1e-4)  # as many blocks at once as there is room for
        assert_close(found, profile_model(large_model().cuda(), blocks, batch=batch))

    assert_kept(large_model().cuda(), "2400MiB")
    with pytest.raises(MemoryBudgetError, match=r"1\.0 GiB of memory is too little"):
        profile_model(large_model().cuda(), blocks, memory="1GiB")
    assert_kept(stream(large_model(), GPU), "1GiB")
    assert torch.cuda.get_per_process_memory_fraction() == 1.0
