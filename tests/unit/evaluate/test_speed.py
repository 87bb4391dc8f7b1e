"""Who is timed when and on what, with a clock that the test turns."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from scarprune.errors import ArgumentError, MemoryBudgetError
from scarprune.evaluate import speed as module
from scarprune.evaluate.speed import Load, measure_speed
from support.tiny_models import tiny_model


class Recorder(nn.Module):
    """Notes what it is called with."""

    def __init__(self, name, calls, context=64):
        super().__init__()
        self.name, self.calls = name, calls
        self.embedding = nn.Embedding(50, 4)
        self.config = {"max_position_embeddings": context}

    def get_input_embeddings(self):
        return self.embedding

    def forward(self, input_ids, past_key_values=0, use_cache=False, logits_to_keep=0):
        assert use_cache
        assert logits_to_keep == 1
        self.calls.append((self.name, tuple(input_ids.shape), past_key_values))
        return SimpleNamespace(past_key_values=past_key_values + input_ids.shape[1])


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pieces of work take, in turn: A's prefill and decode, then B's."""

    def turn(seconds):
        times = iter(seconds)
        monkeypatch.setattr(module, "timed", lambda work, device: (next(times), work()))

    return turn


def test_models_are_timed_in_turn_after_a_warm_up(clock):
    calls = []
    warm = [9.0] * 8
    clock([*warm, 0.5, 2.0, 0.25, 1.0, 1.0, 4.0, 0.125, 0.5])
    models = [Recorder("a", calls), Recorder("b", calls)]
    a, b = measure_speed(models, Load(batch=2, length=6, new=3, rounds=2))
    # 2 x 6 tokens are read, 2 x 3 are added.
    assert (a.prefill, a.decode) == ([24.0, 12.0], [3.0, 1.5])
    assert (b.prefill, b.decode) == ([48.0, 96.0], [6.0, 12.0])
    assert (a.peak_bytes, b.peak_bytes) == (None, None)
    one = [((2, 6), 0), ((2, 1), 6), ((2, 1), 7), ((2, 1), 8)]
    assert calls == [(name, *call) for _ in range(2 + 2) for name in "ab" for call in one]


def test_both_models_get_the_same_tokens():
    seen = []
    models = [tiny_model("llama"), tiny_model("llama")]
    for model in models:
        model.register_forward_pre_hook(
            lambda m, args, kwargs: seen.append(kwargs["input_ids"].tolist()), with_kwargs=True
        )
    measure_speed(models, Load(length=5, new=2, rounds=1))
    assert seen[:3] == seen[3:6]
    assert len(seen) == 2 * 3 * 3


def test_decoding_goes_on_from_the_prefill():
    model, logits = tiny_model("llama"), []
    model.register_forward_hook(lambda m, args, out: logits.append(out.logits[:, -1]))
    measure_speed([model], Load(length=5, new=2, rounds=1, seed=3))
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 96, (1, 7), generator=generator)
    with torch.no_grad():
        whole = tiny_model("llama")(ids).logits[0]
    torch.testing.assert_close(torch.cat(logits[-3:]), whole[4:])


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "opt", "falcon", "bloom", "mpt", "gemma2", "phi3"])
def test_every_kind_of_cache_works(family):
    (found,) = measure_speed([tiny_model(family)], Load(length=4, new=2, rounds=1))
    assert min(*found.prefill, *found.decode) > 0


def test_more_tokens_than_the_context_are_refused():
    with pytest.raises(ArgumentError, match=r"60 \+ 5 tokens are more than the model's context of 64"):
        measure_speed([Recorder("a", [])], Load(length=60, new=5))


@pytest.mark.parametrize("name", ["batch", "length", "new", "rounds"])
def test_no_work_is_refused(name):
    with pytest.raises(ArgumentError, match=f"{name} must be at least 1, and is 0"):
        Load(**{name: 0})


def test_out_of_memory_is_a_sentence(monkeypatch):
    def refuse(work, device):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(module, "timed", refuse)
    with pytest.raises(MemoryBudgetError, match="3 texts of 8 tokens do not fit"):
        measure_speed([Recorder("a", [])], Load(batch=3, length=8))
