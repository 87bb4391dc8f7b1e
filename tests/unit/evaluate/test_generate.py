"""The continuation is the argmax of whole forward passes, one after the other."""

import pytest
import torch

from scarprune.evaluate.generate import continuation
from support.tiny_models import tiny_model
from support.tokenizers import byte_level


@pytest.fixture(scope="module")
def tokenizer():
    return byte_level()


@pytest.fixture(scope="module")
def model(tokenizer):
    return tiny_model("llama", vocab_size=len(tokenizer))


def by_hand(model, ids, tokens):
    said = []
    for _ in range(tokens):
        said.append(int(model(torch.tensor([[*ids, *said]])).logits[0, -1].argmax()))
    return said


def test_the_likeliest_tokens_after_bos_and_prompt(model, tokenizer):
    # What a checkpoint's generation config asks for does not make it other than greedy.
    model.generation_config.update(do_sample=True, repetition_penalty=3.0, num_beams=4)
    ids = [tokenizer.bos_token_id, *tokenizer("The sea was")["input_ids"]]
    said = by_hand(model, ids, 10)
    assert len(set(said)) > 1
    assert tokenizer.eos_token_id not in said
    assert continuation(model, tokenizer, "The sea was", 10) == tokenizer.decode(said)


def test_eos_ends_it(model):
    tokenizer = byte_level()
    ids = [tokenizer.bos_token_id, *tokenizer("The sea was")["input_ids"]]
    said = by_hand(model, ids, 6)
    last = next(i for i in range(1, 6) if said[i] not in said[:i])
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(said[last])
    assert continuation(model, tokenizer, "The sea was", 6) == tokenizer.decode(said[:last])


def test_without_bos(model):
    bare = byte_level(bos=False, eos=False)
    assert continuation(model, bare, "The sea", 5) == bare.decode(
        by_hand(model, bare("The sea")["input_ids"], 5)
    )
