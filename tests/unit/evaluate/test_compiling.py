"""Compiled forward passes are the plain ones; masks and shapes come and go without a compilation each."""

import numpy as np
import pytest
import scipy.special
import torch

from scarprune.evaluate import compiling as compiling_module
from scarprune.evaluate.ablate import Ablator
from scarprune.evaluate.masks import masked
from scarprune.evaluate.nats import nats_rows, token_nats
from scarprune.evaluate.perplexity import perplexity
from scarprune.evaluate.removal import Removal
from scarprune.models.head import Head, find_head
from support.tiny_models import VOCABULARY, tiny_model


@pytest.fixture
def graphs(monkeypatch):
    """What was compiled, traced and run as it is: a real code generator would be slow here."""
    found = []

    def backend(graph, inputs):
        found.append(graph)
        return graph.forward

    real = torch.compile
    torch._dynamo.reset()
    monkeypatch.setattr(
        torch, "compile", lambda function, **options: real(function, backend=backend, **options)
    )
    yield found
    torch._dynamo.reset()


@pytest.fixture
def model():
    return tiny_model("llama", num_hidden_layers=4)


@pytest.fixture
def blocks(blocks_of):
    rng = np.random.default_rng(0)
    return blocks_of([rng.integers(3, VOCABULARY, length) for length in (16, 16, 16, 16, 16, 9)])


def test_one_compilation_serves_all_layers_and_shapes_that_come_once_have_none(model, blocks, graphs):
    expected = perplexity(model, blocks).block_nats
    assert not graphs  # a CPU does not compile unasked
    # Batches of 2, 2 and 1 blocks of 16 tokens, and one of 9.
    found = perplexity(model, blocks, batch=2, compiled=True).block_nats
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert len(graphs) == 1
    assert not any("_compiled_call_impl" in vars(module) for module in model.modules())


def test_masks_are_seen_by_layers_compiled_without_and_leave_them(model, blocks, plan_for, graphs):
    plans = [plan_for(model, seed) for seed in range(3)]
    dense = perplexity(model, blocks, batch=2, compiled=True).block_nats
    for plan in plans:
        with masked(model, plan):
            expected = perplexity(model, blocks).block_nats
            found = perplexity(model, blocks, batch=2, compiled=True).block_nats
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert np.abs(found - dense).max() > 0.01
    assert len(graphs) == 2  # without masks, and with any
    again = perplexity(model, blocks, batch=2, compiled=True).block_nats
    assert np.array_equal(again, dense)


def test_removals_are_inputs_of_the_compiled_layers(model, blocks, graphs):
    plain = Ablator(model, blocks, batch=4)
    compiled = Ablator(model, blocks, batch=4, compiled=True)
    rng, counts = np.random.default_rng(1), []
    for _ in range(3):
        removals = [
            Removal({site.name: rng.permutation(site.width)[:size]})
            for site in plain.sites
            for size in rng.integers(1, 9, 6)
        ]
        np.testing.assert_allclose(compiled.losses(removals), plain.losses(removals), rtol=1e-6)
        counts.append(len(graphs))
    assert counts[0] == counts[1] == counts[2] > 0


def test_where_the_compiler_fails_the_rest_runs_eagerly_and_says_why(model, blocks, monkeypatch, capsys):
    def backend(graph, inputs):
        raise RuntimeError("no such kernel")

    real = torch.compile
    torch._dynamo.reset()
    monkeypatch.setattr(
        torch, "compile", lambda function, **options: real(function, backend=backend, **options)
    )
    expected = perplexity(model, blocks).block_nats
    found = perplexity(model, blocks, batch=2, compiled=True).block_nats
    torch._dynamo.reset()
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert capsys.readouterr().err.count("torch.compile failed") == 1


def test_nothing_is_compiled_on_a_cpu_unasked(model, blocks, monkeypatch):
    asked = []
    resolve = compiling_module.resolve
    monkeypatch.setattr(
        compiling_module, "resolve", lambda *given: asked.append(resolve(*given)) or asked[-1]
    )
    perplexity(model, blocks)
    Ablator(model, blocks).dense()
    assert asked == [False, False]


@pytest.mark.parametrize(("factor", "softcap"), [(1.0, None), (0.25, None), (2.0, 5.0)])
def test_rows_of_the_fused_loss_are_those_of_a_float64_softmax(factor, softcap):
    rng = np.random.default_rng(2)
    output = torch.from_numpy(rng.normal(0, 8, (7, 300))).float()
    chosen = rng.integers(0, 300, 7)
    logits = output.double().numpy() * factor
    if softcap is not None:
        logits = softcap * np.tanh(logits / softcap)
    expected = scipy.special.logsumexp(logits, axis=1) - logits[np.arange(7), chosen]
    found = nats_rows(output, torch.from_numpy(chosen), factor, softcap)
    np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_the_fused_loss_of_all_chunks_has_one_compilation(graphs, monkeypatch):
    monkeypatch.setattr("scarprune.evaluate.nats._compiled", lambda: torch.compile(nats_rows))
    monkeypatch.setattr("scarprune.evaluate.nats.chunk_tokens", lambda vocabulary, device: 4)
    model = tiny_model("gemma2")  # a cap and a tied head
    head = find_head(model)
    assert isinstance(head, Head)
    assert head.softcap is not None
    ids = torch.arange(3, 33).reshape(2, 15)
    with torch.no_grad():
        hidden = head.hidden(ids)[:, :-1]  # 28 rows: seven chunks; then 22: five and a shorter one
        for part in (slice(0, 14), slice(0, 11)):
            plain = token_nats(head, hidden[:, part], ids[:, 1:][:, part], VOCABULARY)
            fused = token_nats(head, hidden[:, part], ids[:, 1:][:, part], VOCABULARY, fused=True)
            torch.testing.assert_close(fused, plain, rtol=2e-6, atol=1e-6)
    assert len(graphs) == 1
