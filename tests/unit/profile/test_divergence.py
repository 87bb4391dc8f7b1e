"""The divergence and its gradients, against whole logits in float64."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from scarprune.models.head import Head, find_head
from scarprune.profile import divergence as divergence_module
from scarprune.profile.divergence import divergence
from support.tiny_models import tiny_model

# What each architecture does to the head's output: factor and soft cap, from its config in tiny_models.
SHAPES = {"llama": (1.0, None), "gemma2": (1.0, 0.5), "cohere": (0.25, None), "granite": (1 / 3, None)}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divergence_module, "chunk_tokens", lambda vocabulary, device, most=None: 7)


def whole_logits(model: Any, hidden: torch.Tensor, scale: float, softcap: float | None) -> torch.Tensor:
    linear = model.get_output_embeddings()
    logits = hidden @ linear.weight.double().T
    if getattr(linear, "bias", None) is not None:
        logits = logits + linear.bias.double()
    logits = logits * scale
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def brute_force(wanted: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    p, q = wanted.softmax(-1), found.softmax(-1)
    return (p * (p / q).log()).sum()


@pytest.mark.parametrize("family", SHAPES)
def test_value_and_gradients_are_those_of_whole_float64_logits(family: str) -> None:
    scale, softcap = SHAPES[family]
    student, teacher = tiny_model(family, seed=1), tiny_model(family, seed=2)
    generator = torch.Generator().manual_seed(0)
    hidden = (3 * torch.randn(2, 10, 32, generator=generator)).requires_grad_()
    wanted = 3 * torch.randn(2, 10, 32, generator=generator)
    weight = student.get_output_embeddings().weight.requires_grad_()
    nats = divergence(find_head(student), hidden, find_head(teacher), wanted)
    found = torch.autograd.grad(nats * 0.5, (hidden, weight))

    exact = hidden.detach().double().requires_grad_()
    expected = brute_force(
        whole_logits(teacher, wanted.double(), scale, softcap), whole_logits(student, exact, scale, softcap)
    )
    grads = torch.autograd.grad(expected * 0.5, (exact, weight))
    assert nats.item() == pytest.approx(expected.item(), rel=1e-5)
    for one, other in zip(found, grads, strict=True):
        np.testing.assert_allclose(
            one.numpy(), other.numpy(), rtol=1e-4, atol=1e-5 * float(other.abs().max())
        )


def test_a_head_with_a_bias_gives_the_bias_its_gradient() -> None:
    student, teacher = tiny_model("phi", seed=1), tiny_model("phi", seed=2)
    hidden, wanted = torch.randn(9, 32), torch.randn(9, 32)
    bias = student.get_output_embeddings().bias.requires_grad_()
    nats = divergence(find_head(student), hidden, find_head(teacher), wanted)
    (found,) = torch.autograd.grad(nats, bias)
    logits = whole_logits(student, hidden.double(), 1.0, None)
    expected = logits.softmax(-1) - whole_logits(teacher, wanted.double(), 1.0, None).softmax(-1)
    np.testing.assert_allclose(found.numpy(), expected.sum(0).detach().numpy(), atol=1e-5)


def test_a_coin_by_hand() -> None:
    # KL of a fair coin to one that shows heads in a quarter of throws: (ln 2 + ln 2/3) / 2.
    head = Head(torch.nn.Identity(), chunked=False)  # hidden states that are the logits
    fair, skewed = torch.zeros(1, 2), torch.tensor([[1.0, 3.0]]).log().requires_grad_()
    nats = divergence(head, skewed, head, fair)
    (gradient,) = torch.autograd.grad(nats, skewed)
    assert nats.item() == pytest.approx((math.log(2) + math.log(2 / 3)) / 2, abs=1e-6)
    np.testing.assert_allclose(gradient.numpy(), [[-0.25, 0.25]], atol=1e-6)


def test_bfloat16_states_get_bfloat16_gradients_close_to_exact_ones() -> None:
    student, teacher = (tiny_model("llama", seed=seed).bfloat16() for seed in (1, 2))
    hidden = torch.randn(20, 32).bfloat16().requires_grad_()
    wanted = torch.randn(20, 32).bfloat16()
    (found,) = torch.autograd.grad(divergence(Head(student), hidden, Head(teacher), wanted), hidden)
    exact = hidden.detach().double().requires_grad_()
    nats = brute_force(whole_logits(teacher, wanted.double(), 1, None), whole_logits(student, exact, 1, None))
    (expected,) = torch.autograd.grad(nats, exact)
    assert found.dtype == torch.bfloat16
    assert float((found - expected).norm() / expected.norm()) < 0.02
