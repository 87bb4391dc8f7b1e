"""Operations and bytes against torch's own counter, and against sums by hand."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from scarprune.cut.prune import prune_model
from scarprune.models.cost import cost_of
from support.operations import counted_operations
from support.plans import random_plan
from support.tiny_models import CONTEXT, HIDDEN, VOCABULARY, WIDTH, tiny_model, token_blocks


@pytest.mark.parametrize("family", ["llama", "gemma2", "phi3", "gpt_neox", "opt", "falcon", "gpt2", "bloom"])
def test_operations_are_those_that_torch_counts(family):
    model, length = tiny_model(family, attn_implementation="eager"), 7
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(token_blocks(1, length))
    cost = cost_of(model)
    # torch counts scores and their use of all pairs of tokens: twice 2 x heads x head size each.
    assert counted_operations(counter) - 4 * cost.score_size * length**2 == cost.matrices.total * length


def test_a_prefill_counts_half_of_the_pairs_and_one_row_of_logits():
    cost = cost_of(tiny_model("llama"))
    found = cost.prefill_operations(10)
    assert found.ffn == 10 * 2 * (2 * 3 * HIDDEN * WIDTH)
    # 4 query heads and 2 of keys and of values, of size 8, and the output's matrix, in 2 layers.
    assert found.attention == 10 * 2 * 2 * HIDDEN * (32 + 16 + 16 + 32) + 2 * 4 * 8 * 4 * (10 * 11 / 2)
    assert found.vocabulary == 2 * HIDDEN * VOCABULARY


def test_a_new_token_reads_the_weights_once_and_each_texts_cache():
    cost = cost_of(tiny_model("llama").bfloat16())
    found = cost.decode_bytes(context=20, batch=3)
    assert found.ffn == 2 * (2 * 3 * HIDDEN * WIDTH)
    # Keys and values: 2 layers x 2 x 2 heads x 8 numbers of 2 bytes, of 20 tokens of 3 texts.
    assert found.attention == 2 * 2 * HIDDEN * (32 + 16 + 16 + 32) + 3 * 20 * (2 * 2 * 2 * 8 * 2)
    assert found.vocabulary == 2 * HIDDEN * VOCABULARY
    assert found.ffn_share == found.ffn / found.total


@pytest.mark.parametrize(("tied", "matrices"), [(True, 1), (False, 2)])
def test_tied_weights_are_stored_once(tied, matrices):
    model = tiny_model("llama", tie_word_embeddings=tied)
    cost = cost_of(model)
    assert cost.weight_bytes.vocabulary == 4 * matrices * VOCABULARY * HIDDEN
    assert cost.read_bytes.vocabulary == 4 * VOCABULARY * HIDDEN
    assert cost.parameters == model.num_parameters()
    assert cost.weight_bytes.total == 4 * cost.parameters


def test_embeddings_of_positions_are_no_attention():
    found = cost_of(tiny_model("gpt2")).weight_bytes.vocabulary
    assert found == 4 * (VOCABULARY + CONTEXT) * HIDDEN


def test_a_cut_takes_away_feed_forward_alone():
    model = tiny_model("llama")
    before = cost_of(model)
    prune_model(model, random_plan(model, 12))
    after = cost_of(model)
    assert after.matrices.ffn == before.matrices.ffn / 4
    assert (after.matrices.attention, after.matrices.vocabulary) == (
        before.matrices.attention,
        before.matrices.vocabulary,
    )
    assert after.widths == (12, 12)


def test_shapes_are_enough():
    with torch.device("meta"):
        model = tiny_model("llama")
    assert cost_of(model).matrices == cost_of(tiny_model("llama")).matrices
