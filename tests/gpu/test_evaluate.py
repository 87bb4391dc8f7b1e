"""Evaluation on a GPU: compiled layers and the fused loss give plain numbers, and nothing is waited for."""

import warnings

import numpy as np
import pytest
import torch

from scarprune.evaluate.ablate import Ablator
from scarprune.evaluate.perplexity import perplexity
from scarprune.evaluate.removal import Removal
from scarprune.text.blocks import Blocks
from support.tiny_models import tiny_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def _blocks(count, length=24):
    ids = np.random.default_rng(0).integers(3, 96, size=(count, length))
    return Blocks(ids=ids, lengths=np.full(count, length), bytes=None, protocol="tokens", source="test")


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "opt", "cohere"])
def test_compiled_perplexity_is_the_plain_one(family):
    model, blocks = tiny_model(family).cuda(), _blocks(10)
    plain = perplexity(model, blocks, batch=4, compiled=False).block_nats
    np.testing.assert_allclose(perplexity(model, blocks, batch=4, compiled=True).block_nats, plain, rtol=1e-5)


def test_compiled_bfloat16_is_within_rounding():
    model, blocks = tiny_model("llama").bfloat16().cuda(), _blocks(8)
    plain = perplexity(model, blocks, batch=4, compiled=False).nats_per_token
    other = perplexity(model, blocks, batch=1, compiled=False).nats_per_token
    found = perplexity(model, blocks, batch=4, compiled=True).nats_per_token
    assert abs(found - plain) <= max(5e-3, 2 * abs(other - plain))


def test_compiled_removals_are_the_plain_ones():
    model, blocks = tiny_model("llama", num_hidden_layers=4).cuda(), _blocks(6)
    plain, compiled = (Ablator(model, blocks, batch=4, compiled=on) for on in (False, True))
    removals = [
        Removal({site.name: np.arange(start, start + 9)}) for site in plain.sites for start in (0, 9, 18)
    ]
    removals.append(Removal({site.name: np.arange(24) for site in plain.sites}))
    np.testing.assert_allclose(compiled.losses(removals), plain.losses(removals), rtol=1e-5)


def _waits(count, run):
    """How often ``run(blocks)`` makes the host wait for the device, on ``count`` blocks."""
    blocks = _blocks(count)
    run(blocks)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run(blocks)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


@pytest.mark.parametrize("compiled", [False, True])
def test_more_batches_are_no_more_waits(compiled):
    model = tiny_model("llama").cuda()

    def run(blocks):
        perplexity(model, blocks, batch=2, compiled=compiled)

    assert _waits(4, run) == _waits(12, run)


def test_more_blocks_under_removals_are_no_more_waits():
    model = tiny_model("llama").cuda()
    site = "model.layers.1.mlp.down_proj"

    def run(blocks):
        Ablator(model, blocks, batch=2).losses([Removal({site: np.array([c])}) for c in range(4)])

    assert _waits(4, run) == _waits(12, run)
