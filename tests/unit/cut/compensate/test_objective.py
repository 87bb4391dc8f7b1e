"""Objectives of layers against whole logits and hidden states in float64."""

import pytest
import torch

from scarprune.cut.compensate.objective import objectives, relative
from scarprune.profile.walk import Walk
from support.texts import random_blocks
from support.tiny_models import tiny_model


def test_relative_errors_by_hand() -> None:
    wanted = torch.tensor([[[3.0, 4.0], [0.0, 2.0]]])
    after = torch.tensor([[[3.0, 3.0], [2.0, 2.0]]])
    assert float(relative(after, wanted)) == pytest.approx((1 / 25 + 4 / 4) / 2)


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "gemma2", "opt", "gpt2", "cohere"])
@pytest.mark.parametrize("near", [1, 2])
def test_layers_near_the_end_are_judged_by_the_predictions(family: str, near: int) -> None:
    model = tiny_model(family).requires_grad_(False)
    blocks = random_blocks(2, 16)
    walk = Walk(model, blocks, 2)
    losses = objectives(walk, near)
    assert [loss is relative for loss in losses] == [index < 2 - near for index in range(2)]
    index = 2 - near
    hidden = walk.embedded(walk.batches[0])
    for before in range(index):
        hidden = walk.step(before, hidden)
    wanted = walk.step(index, hidden)
    shift = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(0)) * 0.3

    def moved(module: torch.nn.Module, args: object, out: object) -> object:
        return (out[0] + shift, *out[1:]) if isinstance(out, tuple) else out + shift

    plain = model(walk.ids(walk.batches[0])).logits.double()
    handle = walk.layers[index].module.register_forward_hook(moved)
    other = model(walk.ids(walk.batches[0])).logits.double()
    handle.remove()
    p, q = torch.log_softmax(plain, -1), torch.log_softmax(other, -1)
    expected = float((p.exp() * (p - q)).sum(-1).mean())
    assert expected > 1e-4
    assert float(losses[index](wanted + shift, wanted)) == pytest.approx(expected, rel=1e-3)
