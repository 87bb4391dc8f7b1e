import pytest
import torch

from scarprune.models.context import context_length, vocabulary_size
from scarprune.models.head import find_head
from support.odd_model import OddForCausalLM, odd_model
from support.tiny_models import TINY_FAMILIES, tiny_model, token_blocks


@pytest.mark.parametrize("model_type", TINY_FAMILIES)
def test_hidden_states_and_head_make_the_models_own_logits(model_type):
    model, ids = tiny_model(model_type), token_blocks()
    head = find_head(model)
    assert head.chunked
    with torch.no_grad():
        hidden = head.hidden(ids)
        torch.testing.assert_close(head.logits(hidden), model(ids).logits, rtol=1e-6, atol=1e-6)
        chunk = head.logits(hidden.reshape(-1, hidden.shape[-1])[3:5])
    torch.testing.assert_close(chunk, model(ids).logits.reshape(-1, 96)[3:5], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("model_type", TINY_FAMILIES)
def test_bfloat16_logits_come_as_float32_and_pass_the_check(model_type):
    model = tiny_model(model_type).to(torch.bfloat16)
    head = find_head(model)
    assert head.chunked
    assert head.logits(head.hidden(token_blocks(1, 4))).dtype == torch.float32


@pytest.mark.parametrize(
    ("model_type", "key", "value", "expected"),
    [
        ("cohere", "logit_scale", 0.25, lambda z: z * 0.25),
        ("cohere2", "logit_scale", 0.25, lambda z: z * 0.25),
        ("granite", "logits_scaling", 3.0, lambda z: z / 3.0),
        ("gemma2", "final_logit_softcapping", 0.5, lambda z: 0.5 * torch.tanh(z / 0.5)),
        ("gemma3_text", "final_logit_softcapping", 0.7, lambda z: 0.7 * torch.tanh(z / 0.7)),
    ],
)
def test_scales_and_caps_are_those_of_the_config(model_type, key, value, expected):
    model = tiny_model(model_type)
    assert getattr(model.config, key) == value
    hidden = torch.linspace(-2, 2, 32)
    plain = hidden @ model.get_output_embeddings().weight.T
    torch.testing.assert_close(find_head(model).logits(hidden), expected(plain))
    assert not torch.allclose(expected(plain), plain, rtol=0.02)


def test_a_cap_of_none_is_no_cap():
    assert find_head(tiny_model("gemma2", final_logit_softcapping=None)).softcap is None


def test_gradients_flow_through_the_chunks():
    model = tiny_model("gemma2").requires_grad_(False)
    head = find_head(model)
    hidden = head.hidden(token_blocks(1, 3)).requires_grad_()
    (found,) = torch.autograd.grad(head.logits(hidden).square().sum(), hidden)
    weight = model.lm_head.weight
    cap, z = 0.5, hidden.detach() @ weight.T
    tanh = torch.tanh(z / cap)
    by_hand = (2 * cap * tanh * (1 - tanh**2)) @ weight
    torch.testing.assert_close(found, by_hand)


def test_an_unknown_head_that_is_linear_is_taken_in_chunks():
    assert find_head(odd_model()).chunked


def test_an_unknown_head_that_is_not_falls_back_to_whole_logits(monkeypatch):
    monkeypatch.setattr(OddForCausalLM, "twist", 1.01)
    model, ids = odd_model(), token_blocks()
    head = find_head(model)
    assert not head.chunked
    with torch.no_grad():
        torch.testing.assert_close(head.logits(head.hidden(ids)), model(ids).logits, rtol=0, atol=0)


def test_the_check_leaves_no_hook():
    model = tiny_model("llama")
    find_head(model)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_context_is_what_the_config_calls_it():
    lengths = {name: context_length(tiny_model(name).config) for name in TINY_FAMILIES}
    assert lengths.pop("bloom") is None  # ALiBi: no limit in its config
    assert set(lengths.values()) == {64}


def test_vocabulary_is_the_rows_of_the_input_embedding():
    model = tiny_model("llama")
    assert vocabulary_size(model) == 96
    model.resize_token_embeddings(104)
    assert vocabulary_size(model) == 104
