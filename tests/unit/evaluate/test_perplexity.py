"""Perplexity against a float64 softmax of the model's own logits, one block at a time."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from accelerate import cpu_offload

from scarprune.errors import ArgumentError, MemoryBudgetError, NumericsError, TextError
from scarprune.evaluate import nats as nats_module
from scarprune.evaluate.perplexity import Perplexity, excess, perplexity
from scarprune.models.head import Head
from support.tiny_models import CONTEXT, VOCABULARY, tiny_model

LENGTHS = (9, 16, 2, 16, 9, 16)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return [rng.integers(3, VOCABULARY, length) for length in LENGTHS]


@pytest.fixture(scope="module")
def model():
    return tiny_model("llama")


def brute_force(model, row):
    """Summed loss of one block in float64."""
    logits = model(torch.as_tensor(row)[None]).logits[0].detach().double().numpy()
    log_p = logits - scipy.special.logsumexp(logits, axis=1, keepdims=True)
    return -sum(log_p[t, row[t + 1]] for t in range(len(row) - 1))


# Soft caps, scales, a tied head and one that no family knows.
@pytest.mark.parametrize("family", ["llama", "gemma2", "granite", "cohere", "gpt2", "opt"])
def test_it_is_the_models_own_loss(family, rows, blocks_of):
    model = tiny_model(family)
    result = perplexity(model, blocks_of(rows))
    expected = np.array([brute_force(model, row) for row in rows])
    np.testing.assert_allclose(result.block_nats, expected, rtol=2e-6)
    assert result.block_nats.dtype == np.float64
    assert result.block_targets.tolist() == [length - 1 for length in LENGTHS]
    assert result.tokens == sum(LENGTHS) - len(LENGTHS)
    assert result.perplexity == pytest.approx(math.exp(expected.sum() / result.tokens), rel=1e-6)
    assert result.nats_per_token == pytest.approx(expected.sum() / result.tokens, rel=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_the_batch_does_not_matter(model, rows, blocks_of, batch):
    alone = perplexity(model, blocks_of(rows), batch=1).block_nats
    np.testing.assert_allclose(perplexity(model, blocks_of(rows), batch=batch).block_nats, alone, rtol=1e-6)


def test_logits_in_chunks_are_the_same(model, rows, blocks_of, monkeypatch):
    whole = perplexity(model, blocks_of(rows)).block_nats
    monkeypatch.setattr(nats_module, "chunk_tokens", lambda vocabulary, device: 4)
    np.testing.assert_allclose(perplexity(model, blocks_of(rows)).block_nats, whole, rtol=1e-6)


def test_padding_is_not_read(model, rows, blocks_of):
    blocks = blocks_of(rows)
    expected = perplexity(model, blocks).block_nats
    blocks.ids[2, 2:] = 10_000
    assert np.array_equal(perplexity(model, blocks).block_nats, expected)


def result_of(nats, targets, **facts):
    return Perplexity(
        np.array(nats, dtype=float),
        np.array(targets),
        **{"bytes": None, "protocol": "packed", "text": "t", **facts},
    )


class TestNumbers:
    def test_standard_error_is_over_block_means(self):
        result = result_of([6.0, 4.0, 10.0], [2, 4, 5])
        assert result.nats_per_token == 20 / 11
        assert result.standard_error == pytest.approx(scipy.stats.sem([3.0, 1.0, 2.0]))

    def test_bits_per_byte(self):
        # 6 nats are 6 / ln 2 bits, over 12 bytes
        assert result_of([2.0, 4.0], [1, 1], bytes=12).bits_per_byte == pytest.approx(0.5 / math.log(2))
        assert result_of([2.0, 4.0], [1, 1]).bits_per_byte is None

    def test_excess_is_paired(self):
        dense, cut = result_of([6.0, 4.0, 10.0], [2, 4, 5]), result_of([7.0, 8.0, 10.0], [2, 4, 5])
        nats, error = excess(dense, cut)
        assert nats == pytest.approx(math.log(cut.perplexity / dense.perplexity))
        assert error == pytest.approx(scipy.stats.sem([0.5, 1.0, 0.0]))
        assert excess(dense, dense) == (0.0, 0.0)

    def test_one_block_has_no_standard_error(self):
        one, two = result_of([2.0], [4]), result_of([3.0], [4])
        assert one.standard_error is None
        assert excess(one, two) == (0.25, None)

    def test_excess_of_different_blocks_is_refused(self):
        with pytest.raises(ArgumentError, match="the same blocks"):
            excess(result_of([1.0], [1]), result_of([1.0], [1], text="other"))

    def test_json(self):
        assert result_of([2.0, 4.0], [1, 2], bytes=3).as_json() == {
            "perplexity": pytest.approx(math.exp(2)),
            "nats_per_token": 2.0,
            "standard_error": 0.0,
            "tokens": 3,
            "bits_per_byte": pytest.approx(2 / math.log(2)),
            "blocks": 2,
            "protocol": "packed",
        }

    def test_a_perplexity_beyond_float64_is_null_in_json(self):
        result = result_of([800.0], [1])
        assert result.perplexity == math.inf
        json = result.as_json()
        assert json["perplexity"] is json["standard_error"] is json["bits_per_byte"] is None
        assert json["nats_per_token"] == 800.0


def test_facts_of_the_blocks_travel_along(model, rows, blocks_of):
    blocks = blocks_of(rows, bytes=np.arange(6), protocol="documents")
    result = perplexity(model, blocks)
    assert result.bytes == 15
    assert result.protocol == "documents"
    assert result.text == blocks.fingerprint


def test_the_model_is_left_as_it_was_and_dropout_is_off(rows, blocks_of):
    model = tiny_model("gpt2", resid_pdrop=0.5)
    expected = perplexity(model, blocks_of(rows)).block_nats
    model.train()
    model.transformer.h[0].eval()
    assert np.array_equal(perplexity(model, blocks_of(rows)).block_nats, expected)
    assert model.training
    assert model.transformer.h[1].mlp.training
    assert not model.transformer.h[0].mlp.training
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_weights_that_accelerate_moves(model, rows, blocks_of):
    expected = perplexity(model, blocks_of(rows)).block_nats
    offloaded = tiny_model("llama")
    cpu_offload(offloaded, execution_device=torch.device("cpu"))
    np.testing.assert_allclose(perplexity(offloaded, blocks_of(rows)).block_nats, expected, rtol=1e-6)


class TestRefusals:
    def test_an_id_outside_the_vocabulary(self, model, blocks_of):
        with pytest.raises(TextError, match=f"token id {VOCABULARY}, .* has {VOCABULARY} ids"):
            perplexity(model, blocks_of([[1, VOCABULARY]]))

    def test_a_block_beyond_the_context(self, model, blocks_of):
        with pytest.raises(TextError, match=f"{CONTEXT + 1} tokens long, .* context is {CONTEXT} tokens"):
            perplexity(model, blocks_of([[1] * (CONTEXT + 1)]))

    def test_nothing_to_predict(self, model, blocks_of):
        with pytest.raises(TextError, match="at least two tokens"):
            perplexity(model, blocks_of([[1, 2], [3]]))
        with pytest.raises(TextError, match="at least two tokens"):
            perplexity(model, blocks_of([[1, 2]]).take(np.array([], dtype=int)))

    def test_a_loss_that_is_not_finite_names_its_block(self, blocks_of):
        model = tiny_model("llama")
        with torch.no_grad():
            model.get_input_embeddings().weight[50] = torch.inf
        with pytest.raises(NumericsError, match="The loss of block 1 is nan"):
            perplexity(model, blocks_of([[1, 2, 3], [1, 50, 2]]))

    @pytest.mark.parametrize("batch", [0, -1, "many", 1.5])
    def test_nonsense_batches(self, model, rows, blocks_of, batch):
        with pytest.raises(ArgumentError, match=f"{batch!r}"):
            perplexity(model, blocks_of(rows), batch=batch)


class TestOutOfMemory:
    @pytest.fixture
    def small_memory(self, monkeypatch):
        """A model that cannot take more than ``most`` blocks at once; what it was given."""

        def limit(most):
            given = []

            def hidden(head, ids):
                given.append(len(ids))
                if len(ids) > most:
                    raise torch.OutOfMemoryError("CUDA out of memory.")
                return original(head, ids)

            original = Head.hidden
            monkeypatch.setattr(Head, "hidden", hidden)
            return given

        return limit

    def test_auto_halves_until_it_fits(self, model, rows, blocks_of, small_memory):
        blocks = blocks_of(rows[1:2] * 7)
        expected = perplexity(model, blocks).block_nats
        given = small_memory(2)
        np.testing.assert_allclose(perplexity(model, blocks).block_nats, expected, rtol=1e-6)
        assert given == [7, 3, 1, 1, 1, 1, 1, 1, 1]

    def test_what_does_not_fit_at_all(self, model, rows, blocks_of, small_memory):
        small_memory(0)
        with pytest.raises(MemoryBudgetError, match="A batch of 1 blocks of 2 tokens does not fit"):
            perplexity(model, blocks_of(rows))

    def test_a_batch_asked_for_is_not_halved(self, model, rows, blocks_of, small_memory):
        small_memory(2)
        with pytest.raises(
            MemoryBudgetError, match=r"A batch of 3 blocks of 16 tokens does not fit.*--batch auto"
        ):
            perplexity(model, blocks_of(rows), batch=3)
