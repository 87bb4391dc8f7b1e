"""RMS norms as torch's own: which modules are taken, what they give, and where they are used."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from scarprune.augment.own_text import own_text
from scarprune.cut.compensate.job import Bounds, Job
from scarprune.cut.compensate.kinds.refit import fit
from scarprune.distill.heal import heal
from scarprune.evaluate.perplexity import perplexity
from scarprune.models import norms
from scarprune.models.norms import fused_norms
from scarprune.profile.run import profile_model
from scarprune.text.hold_out import hold_out
from support.healing import dense_and_cut, text
from support.plans import random_plan
from support.texts import own_blocks, random_blocks
from support.tiny_models import tiny_model


@pytest.fixture(autouse=True)
def also_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norms, "_DEVICES", ("cpu",))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """The dtype of the weight in every call of a norm that is torch's own."""
    seen: list[torch.dtype] = []

    def counted(self: Any, hidden: torch.Tensor) -> torch.Tensor:
        seen.append(self.weight.dtype)
        return norms._rms_norm(hidden, self.weight, norms._epsilon_of(self))

    monkeypatch.setattr(norms, "_forward", counted)
    return seen


class Norm(nn.Module):
    """What transformers writes out, or something like it."""

    def __init__(self, formula: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(16, generator=torch.Generator().manual_seed(1)) + 0.5)
        self.variance_epsilon = 1e-5
        self._formula = formula

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._formula(x, self.weight, self.variance_epsilon)


def right(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)).to(x.dtype)


def taken(module: nn.Module) -> int:
    return sum("forward" in vars(part) for part in module.modules())


@pytest.mark.parametrize(
    ("formula", "count"),
    [
        (right, 1),
        (lambda x, weight, epsilon: right(x, 1 + weight, epsilon), 0),  # Gemma's
        (lambda x, weight, epsilon: right(x, weight, 10 * epsilon), 0),
        (lambda x, weight, epsilon: right(x, weight, 0.0), 0),
        (lambda x, weight, epsilon: right(x - x.mean(-1, keepdim=True), weight, epsilon), 0),
        (lambda x, weight, epsilon: right(x, weight, epsilon).double(), 0),
        (lambda x, weight, epsilon: right(x[..., :8], weight[:8], epsilon), 0),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_only_what_gives_the_same_is_taken(formula: Any, count: int, dtype: torch.dtype) -> None:
    module = Norm(formula).to(dtype)
    with fused_norms(module, float32=True):
        assert taken(module) == count
    assert taken(module) == 0


def test_modules_of_one_class_are_looked_at_one_by_one() -> None:
    both = nn.Sequential(Norm(right), Norm(lambda x, weight, epsilon: right(x, 1 + weight, epsilon)))
    with fused_norms(both, float32=True):
        assert ["forward" in vars(module) for module in both] == [True, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_norm_and_its_gradients_are_those_of_the_formula_in_float64(dtype: torch.dtype) -> None:
    module = Norm(right).to(dtype)
    x = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(2)).to(dtype).requires_grad_()
    slope = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(3)).to(dtype)
    exact, weight = (t.detach().double().requires_grad_() for t in (x, module.weight))
    expected = weight * exact / (exact.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    wanted = torch.autograd.grad(expected, (exact, weight), slope.double())
    with fused_norms(module, float32=True):
        found = module(x)
    gradients = torch.autograd.grad(found, (x, module.weight), slope)
    close = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(found.double(), expected, rtol=close, atol=close)
    for gradient, want in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient.double(), want, rtol=close, atol=4 * close)


@pytest.mark.parametrize(("family", "count"), [("llama", 5), ("qwen3", 9), ("gemma2", 0), ("opt", 0)])
def test_a_model_gives_what_it_gave(family: str, count: int) -> None:
    model, ids = tiny_model(family), torch.from_numpy(random_blocks(2, 9).ids)
    with torch.no_grad():
        before = model(ids).logits
        with fused_norms(model, float32=True):
            assert taken(model) == count
            torch.testing.assert_close(model(ids).logits, before, rtol=1e-5, atol=1e-5)
        assert torch.equal(model(ids).logits, before)


def test_float32_stays_as_it_is_unless_asked_for() -> None:
    model = tiny_model("llama")
    with fused_norms(model):
        assert taken(model) == 0
    with fused_norms(model.bfloat16()):
        assert taken(model) == 5


def test_what_something_else_has_taken_over_is_left_alone() -> None:
    module = Norm(right)
    other = module.forward
    module.forward = other  # type: ignore[method-assign]  # as accelerate's hooks do
    with fused_norms(module, float32=True):
        assert module.forward is other
    assert module.forward is other


def test_a_copy_made_inside_has_weights_of_its_own() -> None:
    module = Norm(right)
    x = torch.ones(1, 16)
    with fused_norms(module, float32=True):
        twin = copy.deepcopy(module)
    with torch.no_grad():
        twin.weight.mul_(2)
        torch.testing.assert_close(twin(x), 2 * module(x))


def test_norms_come_back_after_an_error() -> None:
    module = Norm(right)
    with pytest.raises(KeyError), fused_norms(module, float32=True):
        raise KeyError
    assert taken(module) == 0


def test_what_is_measured_in_bfloat16_uses_them_and_stays_the_same(
    calls: list[torch.dtype], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, blocks = tiny_model("llama").bfloat16(), random_blocks(8, 12)
    profile, judged = profile_model(model, blocks), perplexity(model, blocks)
    assert len(calls) > 20
    monkeypatch.setattr(norms, "_DEVICES", ())
    plain, expected = profile_model(model, blocks), perplexity(model, blocks)
    assert judged.nats_per_token == pytest.approx(expected.nats_per_token, rel=2e-3)
    for site in plain.sites:
        found, wanted = (p.get(site.name, "sum_q2").sum() for p in (profile, plain))
        assert found == pytest.approx(wanted, rel=0.05)


def test_what_is_measured_in_float32_is_bit_for_bit_the_same(calls: list[torch.dtype]) -> None:
    profile_model(tiny_model("llama"), random_blocks(8, 12))
    perplexity(tiny_model("llama"), random_blocks(8, 12))
    assert not calls


def test_training_and_writing_use_them(calls: list[torch.dtype]) -> None:
    model = tiny_model("llama").requires_grad_(False)
    blocks = own_blocks(model, 32)
    fitting, held_out = hold_out(blocks)
    job = Job(model, random_plan(model, 20), 20, fitting, held_out, Bounds(40, tokens=128))
    for found in fit(job, rate=0.02):
        assert found.facts["errors"]["refit"] < found.facts["errors"]["ls"]
    assert calls
    calls.clear()
    teacher, student = dense_and_cut()
    assert heal(student, teacher, text(), held_out=text(), steps=3, batch=4, lr=1e-3).improved
    assert calls
    calls.clear()
    own_text(tiny_model("llama").bfloat16(), random_blocks(2, 12), 3)
    assert calls
    for trained in (model, teacher, student):
        assert taken(trained) == 0
        assert np.isfinite(perplexity(trained, random_blocks(2, 9)).perplexity)
