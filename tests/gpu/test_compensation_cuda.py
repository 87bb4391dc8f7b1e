"""Compensation on a GPU: run on demand with ``pytest -m gpu``."""

import numpy as np
import pytest
import torch

from scarprune.cut.compensate.job import Bounds, Job
from scarprune.cut.compensate.kinds.ls import COMPENSATION as LS
from scarprune.cut.compensate.kinds.refit import fit
from scarprune.cut.prune import prune_model
from scarprune.profile import hidden
from scarprune.profile.gram import Gram
from scarprune.text.hold_out import hold_out
from support.judging import every_step_is_better
from support.plans import random_plan
from support.texts import own_blocks, random_blocks
from support.tiny_models import tiny_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_grams_are_summed_in_float32_or_better_whatever_the_precision_is_set_to(dtype):
    u = torch.randn(4096, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    gram = Gram(64, torch.device("cuda"))
    gram.add(u.cuda())
    expected = u.double().T @ u.double()
    np.testing.assert_allclose(gram.outer.cpu(), expected, rtol=1e-5, atol=1e-5 * expected.abs().max())


@pytest.mark.parametrize("family", ["llama", "phi3", "opt", "gpt2"])
def test_ls_on_cuda_is_ls_on_the_cpu(family):
    found = []
    for device in ("cpu", "cuda"):
        model = tiny_model(family).requires_grad_(False).to(device)
        text, held = hold_out(random_blocks(24))
        found.append(list(LS.fit(Job(model, random_plan(model, 20), 20, text, held))))
    for cpu, cuda in zip(*found, strict=True):
        assert cpu.facts["errors"] == pytest.approx(cuda.facts["errors"], rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("share", [0.25, 0.0])
def test_refit_trains_from_states_on_the_device_and_in_pinned_memory(dtype, share, monkeypatch):
    monkeypatch.setattr(hidden, "_SHARE_OF_FREE", share)
    model = tiny_model("llama").requires_grad_(False)
    text, held = hold_out(own_blocks(model, 32))
    model = model.to("cuda", dtype)
    plan = random_plan(model, 20)
    job = Job(model, plan, 20, text, held, Bounds(steps=60, tokens=128))
    errors = [found.facts["errors"] for found in fit(job, rate=0.02)]
    assert errors[0]["refit"] < errors[0]["ls"] < errors[0]["none"]
    # What least squares gain at the last site is less than rounding: they may fall back to the cut there.
    assert errors[1]["refit"] < errors[1]["ls"] <= errors[1]["none"]


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2", "gemma2"])
def test_a_model_on_cuda_is_compensated_in_place(family, monkeypatch):
    every_step_is_better(monkeypatch)
    model = tiny_model(family)
    text = own_blocks(model)
    model = model.to("cuda", torch.bfloat16)
    report = prune_model(model, random_plan(model, 20), "refit", blocks=text, bounds=Bounds(seconds=1.0))
    assert report.compensation["kept"] == "refit"
    assert all(parameter.is_cuda for parameter in model.parameters())
    with torch.no_grad():
        assert bool(torch.isfinite(model(torch.from_numpy(text.ids).cuda()).logits).all())
