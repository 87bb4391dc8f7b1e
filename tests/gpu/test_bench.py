"""Times and memory on a real GPU: ``pytest -m gpu``."""

import pytest
import torch

from scarprune.cut.prune import prune_model
from scarprune.evaluate.speed import Load, measure_speed
from scarprune.runtime.clock import measure_ceiling, timed
from support.plans import random_plan
from support.tiny_models import tiny_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

WIDE = {
    "hidden_size": 1024,
    "intermediate_size": 8192,
    "vocab_size": 1000,
    "max_position_embeddings": 4096,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 64,
}


def test_the_queue_is_waited_for():
    a = torch.ones(8192, 8192, dtype=torch.bfloat16, device="cuda")
    one, _ = timed(lambda: a @ a, a.device)
    one, _ = timed(lambda: a @ a, a.device)
    ten, _ = timed(lambda: [a @ a for _ in range(10)][-1], a.device)
    assert ten == pytest.approx(10 * one, rel=0.3)


def test_rates_of_the_device_are_possible():
    found = measure_ceiling(torch.device("cuda"), torch.bfloat16)
    assert 1e13 < found.operations_per_second < 1e16
    assert 1e11 < found.bytes_per_second < 1e14


def test_a_cut_model_is_faster_and_smaller_where_feed_forward_dominates():
    model = tiny_model("llama", **WIDE).bfloat16().cuda()
    small = tiny_model("llama", **WIDE).bfloat16().cuda()
    prune_model(small, random_plan(small, 1024))
    dense, cut = measure_speed([model, small], Load(batch=8, length=2048, new=4, rounds=3))
    assert all(ours > theirs for ours, theirs in zip(cut.prefill, dense.prefill, strict=True))
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    assert weights < cut.peak_bytes + 2 * 2 * 3 * 7168 * 1024 < dense.peak_bytes + weights
    assert dense.peak_bytes - cut.peak_bytes >= 2 * 2 * 3 * 7168 * 1024  # the weights that are gone
