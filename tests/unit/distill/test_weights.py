"""The flat weights, and the model that computes with views of them."""

import torch

from scarprune.distill.weights import Weights
from support.tiny_models import tiny_model, token_blocks


def test_the_model_computes_the_same_and_tied_weights_count_once() -> None:
    model = tiny_model("gemma").requires_grad_(True)
    before = model(token_blocks()).logits.detach()
    weights = Weights(model, torch.float32)
    assert len(weights.trained) == len(list(model.parameters()))
    assert torch.equal(model(token_blocks()).logits, before)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_what_changes_in_the_master_changes_in_the_model_and_stays() -> None:
    model = tiny_model("llama").requires_grad_(True)
    expected = {name: p.detach() + 0.5 for name, p in model.named_parameters()}
    weights = Weights(model, torch.bfloat16)
    weights.master += 0.5
    weights.publish()
    assert all(p.dtype == torch.bfloat16 for p in model.parameters())
    weights.give_back()
    weights.master.zero_()  # nothing is shared any more
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, expected[name])


def test_frozen_weights_come_back_exactly() -> None:
    model = tiny_model("llama").requires_grad_(False)
    model.lm_head.weight.requires_grad_(True)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    Weights(model, torch.bfloat16).give_back()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_gradients_add_up_where_their_parameters_are() -> None:
    model = tiny_model("llama").requires_grad_(True)
    weights = Weights(model, torch.float32)
    for _ in range(2):
        weights.add_gradients(tuple(torch.full_like(p, i + 1.0) for i, p in enumerate(weights.trained)))
    weights.master.copy_(weights.gradient)
    for i, parameter in enumerate(weights.trained):
        assert torch.equal(parameter, torch.full_like(parameter, 2 * (i + 1.0)))


def test_values_are_rounded_for_judging_as_they_will_be_given_back() -> None:
    model = tiny_model("llama").bfloat16().requires_grad_(True)
    weights = Weights(model, torch.float32)
    weights.master += 1e-4
    exact = weights.master.clone()
    with weights.as_given_back():
        inside = [p.detach().clone() for p in weights.trained]
    assert torch.equal(weights.master, exact)
    weights.give_back()
    for seen, given in zip(inside, weights.trained, strict=True):
        assert seen.dtype == torch.float32
        assert torch.equal(seen, given.float())
