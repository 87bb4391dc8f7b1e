"""Plans judged together are what each is alone, masked."""

import numpy as np
import pytest

from scarprune.errors import NumericsError, PlanError
from scarprune.evaluate.ablate import Ablator
from scarprune.evaluate.masks import masked
from scarprune.evaluate.perplexity import perplexity
from scarprune.evaluate.plans import judge_plans
from support.tiny_models import VOCABULARY, tiny_model


@pytest.fixture
def blocks(blocks_of):
    rng = np.random.default_rng(0)
    rows = [rng.integers(3, VOCABULARY, length) for length in (16, 9, 16, 16, 2, 16)]
    return blocks_of(rows, bytes=np.arange(6), protocol="documents")


@pytest.mark.parametrize("family", ["llama", "opt", "bloom"])  # one of each branch
@pytest.mark.parametrize("batch", [2, 16])
def test_several_at_once_are_each_alone(family, batch, blocks, plan_for):
    model = tiny_model(family)
    plans = [plan_for(model, seed) for seed in (0, 1, 2, 1)]
    expected = []
    for plan in plans:
        with masked(model, plan):
            expected.append(perplexity(model, blocks))
    ablator = Ablator(model, blocks, batch=batch)
    for order in ([0, 1, 2, 3], [2, 3, 1, 0]):
        found = judge_plans(ablator, [plans[place] for place in order])
        for place, judged in zip(order, found, strict=True):
            assert not isinstance(judged, NumericsError)
            np.testing.assert_allclose(judged.block_nats, expected[place].block_nats, rtol=1e-6)
            assert judged.as_json().keys() == expected[place].as_json().keys()
            assert (judged.bytes, judged.text) == (expected[place].bytes, expected[place].text)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_equal_plans_run_once(blocks, plan_for):
    model = tiny_model("llama")
    seen = []
    last = model.model.layers[-1]
    ablator = Ablator(model, blocks, batch=16)
    handle = last.register_forward_hook(lambda module, args, output: seen.append(len(output)))
    judge_plans(ablator, [plan_for(model, seed) for seed in (3, 4, 3, 3, 4)])
    handle.remove()
    assert sum(seen) == 2 * len(blocks)


def test_a_loss_that_is_not_finite_is_that_plans_alone(blocks, plan_for, monkeypatch):
    model = tiny_model("llama")
    ablator = Ablator(model, blocks)
    nats = np.ones((2, len(blocks)))
    nats[1, 3] = np.inf
    monkeypatch.setattr(Ablator, "any_losses", lambda self, removals, what: nats)
    good, bad = judge_plans(ablator, [plan_for(model, 0), plan_for(model, 1)])
    assert not isinstance(good, NumericsError)
    assert good.block_nats.tolist() == [1.0] * 6
    assert isinstance(bad, NumericsError)
    assert "The loss of block 3 is inf" in bad.message


def test_no_plans_are_no_results(blocks):
    assert judge_plans(Ablator(tiny_model("llama"), blocks), []) == []


def test_a_plan_of_other_weights_is_refused(blocks, plan_for):
    ablator = Ablator(tiny_model("llama"), blocks)
    with pytest.raises(PlanError, match="made for other weights"):
        judge_plans(ablator, [plan_for(tiny_model("llama", seed=1))])
