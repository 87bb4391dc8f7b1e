"""What only a GPU can show: run on demand with ``pytest -m gpu``."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import torch

from scarprune.cut.prune import prune_model
from scarprune.evaluate.ablate import Ablator
from scarprune.evaluate.masks import masked
from scarprune.evaluate.nats import token_nats
from scarprune.evaluate.perplexity import perplexity
from scarprune.evaluate.removal import Removal
from scarprune.findings.halo_controls import measure_halo
from scarprune.plan.plan import make_plan
from scarprune.profile import passes as passes_module
from scarprune.profile.loss import loss_rows
from scarprune.profile.run import profile_model
from scarprune.scores.core import core
from scarprune.text.blocks import Blocks
from support.tiny_models import tiny_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(scope="module")
def blocks():
    ids = np.random.default_rng(0).integers(3, 96, size=(16, 24))
    return Blocks(ids=ids, lengths=np.full(16, 24), bytes=None, protocol="tokens", source="test")


def compare(found, expected, rtol):
    assert found.tensors.keys() == expected.tensors.keys()
    for key, array in expected.tensors.items():
        scale = np.abs(array).max()
        np.testing.assert_allclose(found.tensors[key], array, rtol=rtol, atol=rtol * scale * 0.1, err_msg=key)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "phi3", "gemma2", "gpt_neox"])
def test_cuda_float32_equals_the_cpu(family, blocks):
    on_cpu = profile_model(tiny_model(family), blocks, labels="data")
    on_gpu = profile_model(tiny_model(family).cuda(), blocks, labels="data")
    for site in on_cpu.sites:
        for name in ("sum_q2", "sum_u2", "block_G2", "groups_q2", "conn"):
            a, b = on_cpu.get(site.name, name), on_gpu.get(site.name, name)
            np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5 * np.abs(a).max(), err_msg=name)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_compiled_sums_equal_plain_ones(family, blocks):
    plain = profile_model(tiny_model(family).cuda(), blocks, compiled=False, labels="both", batch=4)
    fused = profile_model(tiny_model(family).cuda(), blocks, compiled=True, labels="both", batch=4)
    assert fused.header["provenance"]["compiled"]
    compare(fused, plain, 1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_compiled_half_precision_stays_within_two_orders_of_batches(dtype, blocks):
    """Compiled against eager differs no more than a few times what another batch does to eager sums."""
    model = tiny_model("llama").to(dtype).cuda()
    eager, other, fused = (
        profile_model(model, blocks, batch=batch, compiled=compiled)
        for batch, compiled in ((4, False), (16, False), (4, True))
    )
    exact = profile_model(tiny_model("llama").cuda(), blocks)

    def error(profile):
        return max(
            float(
                np.abs(profile.get(s.name, "sum_q2").sum(0) / exact.get(s.name, "sum_q2").sum(0) - 1).mean()
            )
            for s in exact.sites
        )

    assert error(fused) < 1.5 * max(error(eager), error(other))


def test_loss_rows_of_a_large_vocabulary_are_exact():
    """One kernel from the head's output to its gradient: against float64."""
    torch.manual_seed(0)
    output, targets = (3 * torch.randn(300, 128256)).bfloat16().cuda(), torch.randint(128256, (300,)).cuda()
    logits = output.double().requires_grad_()
    exact = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    exact.backward()
    nats, gradient = torch.compile(loss_rows)(output, targets, 1.0, 1.0, None)
    assert float(nats) == pytest.approx(float(exact), rel=1e-6)
    torch.testing.assert_close(gradient, logits.grad.bfloat16(), rtol=2**-7, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_the_ranking(dtype, blocks):
    exact = profile_model(tiny_model("llama"), blocks)
    half = profile_model(tiny_model("llama").to(dtype).cuda(), blocks)
    for site in exact.sites:
        a, b = (p.get(site.name, "sum_q2").sum(0) for p in (exact, half))
        assert scipy.stats.spearmanr(a, b).statistic > 0.98


def test_bfloat16_core_equals_float32_core_within_rounding(blocks):
    exact = core(profile_model(tiny_model("llama").cuda(), blocks), rho=0.15)
    half = core(profile_model(tiny_model("llama").bfloat16().cuda(), blocks), rho=0.15)
    swapped = sum(len(set(exact[name]) - set(half[name])) for name in exact)
    assert swapped <= 2


def test_out_of_memory_halves_the_batch(blocks, monkeypatch, capsys):
    """A real refusal of the allocator, in the middle of a batch, leaves the sums as they were."""
    model = tiny_model("llama").cuda()
    whole = profile_model(model, blocks, batch=2)
    original = passes_module.Run._batch

    def hungry(self, observer, kinds, rows):
        original(self, observer, kinds, rows)
        if len(rows) > 2:
            torch.empty(1 << 50, dtype=torch.uint8, device="cuda")

    monkeypatch.setattr(passes_module.Run, "_batch", hungry)
    halved = profile_model(model, blocks)
    assert "Out of memory: going on with 2 blocks at once" in capsys.readouterr().err
    compare(halved, whole, 1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_controls_of_the_halo_equal_those_of_the_cpu(dtype, blocks):
    """Moments stay on the device; half precision keeps their size."""
    profile = profile_model(tiny_model("llama"), blocks, rho=0.1)
    on_cpu, on_gpu = (
        measure_halo(model, profile, blocks, flips=50, random_cores=2).moments
        for model in (tiny_model("llama"), tiny_model("llama").to(dtype).cuda())
    )
    rtol = 1e-3 if dtype == torch.float32 else 0.2
    for site, jobs in on_cpu.crossed.items():
        for job, other in zip(jobs, on_gpu.crossed[site], strict=True):
            for variant, sums in job.items():
                a, b = sums.second[0].sum(0), other[variant].second[0].sum(0)
                np.testing.assert_allclose(b, a, rtol=rtol, atol=rtol * a.max())
        np.testing.assert_allclose(on_gpu.top[site].total, on_cpu.top[site].total, rtol=rtol)


def test_removals_in_a_growing_batch_equal_those_of_the_cpu(blocks):
    removals = [Removal({"model.layers.0.mlp.down_proj": np.array([channel])}) for channel in (0, 3, 40)]
    removals.append(Removal({f"model.layers.{layer}.mlp.down_proj": np.arange(20) for layer in (0, 1)}))
    on_cpu, on_gpu = Ablator(tiny_model("llama"), blocks), Ablator(tiny_model("llama").cuda(), blocks)
    assert on_gpu.branch == "site"
    np.testing.assert_allclose(on_gpu.losses(removals), on_cpu.losses(removals), rtol=1e-5)


def test_losses_of_a_large_vocabulary_are_exact():
    """One kernel takes the losses on a GPU: against float64, on logits like those of a large model."""
    torch.manual_seed(0)
    logits, targets = 3 * torch.randn(1, 300, 128256), torch.randint(128256, (1, 300))
    exact = torch.nn.functional.cross_entropy(logits[0].double(), targets[0], reduction="none")
    head = SimpleNamespace(
        linear=lambda states: states, finish=lambda states: states, scale=1.0, softcap=None
    )
    for fused in (False, True):
        found = token_nats(head, logits.cuda(), targets, 128256, fused=fused)[0].cpu().double()
        assert float((found - exact).abs().max()) < 1e-5
        assert abs(float((found - exact).mean())) < 1e-6


def test_masked_equals_cut_on_the_gpu(blocks):
    model = tiny_model("llama").cuda()
    plan = make_plan(profile_model(model, blocks), "loss_proxy", sparsity=0.5)
    with masked(model, plan):
        before = perplexity(model, blocks).nats_per_token
    prune_model(model, plan)
    assert perplexity(model, blocks).nats_per_token == pytest.approx(before, rel=1e-5)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_weights_on_two_devices_give_the_same_sums(blocks):
    from accelerate import dispatch_model

    whole = profile_model(tiny_model("llama").cuda(), blocks, labels="both", batch=4)
    model = tiny_model("llama")
    device_map = {
        "model.embed_tokens": 0,
        "model.layers.0": 0,
        "model.layers.1": 1,
        "model.norm": 1,
        "model.rotary_emb": 0,
        "lm_head": 1,
    }
    split = profile_model(dispatch_model(model, device_map=device_map), blocks, labels="both", batch=4)
    compare(split, whole, 1e-4)
    plan = make_plan(whole, "loss_proxy", sparsity=0.5)
    with masked(model, plan):
        assert perplexity(model, blocks).perplexity > 0
