"""Text in a model's own words: what is kept of the text, where the model speaks, and what it says."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from scarprune.augment.own_text import _Writer, own_text
from scarprune.augment.placeholder import Placeholder, find_placeholder
from scarprune.errors import ArgumentError, MemoryBudgetError, TextError, UnsupportedModelError
from scarprune.text.blocks import Blocks
from support.texts import random_blocks
from support.tiny_models import tiny_model

COLD = 1e-4  # so that what is sampled is what is likeliest
VOCABULARY = {"<s>": 0, "Ġa": 1, "Ġbee": 2, "tle": 3, "Ġ<": 4, "unk": 5, ">": 6, "<": 7, ".": 8, "Ġ9": 9}


class Words:
    """A tokenizer of ten tokens."""

    all_special_ids = (0,)

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [4, 5, 6] if text.startswith(" ") else [7, 5, 6]}

    def get_vocab(self) -> dict[str, int]:
        return VOCABULARY


def rows(*rows: list[int]) -> Blocks:
    ids = np.array(rows)
    return Blocks(ids, np.full(len(ids), ids.shape[1]), None, "packed", "text", bos=True)


def test_ordinary_text_stays_and_each_further_block_begins_as_one_of_it() -> None:
    model, text = tiny_model("llama"), random_blocks(5, 12)
    found = own_text(model, text, 8, temperature=COLD)
    assert np.array_equal(found.ids[:5], text.ids)
    assert found.ids.shape == (13, 12)
    for row in found.ids[5:]:
        same = [int(np.argmin(np.append(row == block, False))) for block in text.ids]
        begun = max(same)
        assert begun >= 1
        with torch.no_grad():  # without keys and values kept: the whole row at once
            likeliest = model(torch.from_numpy(row)[None]).logits[0].argmax(-1).numpy()
        assert np.array_equal(row[begun:], likeliest[begun - 1 : -1])


@pytest.mark.parametrize(("seconds", "count"), [(0.0, 4), (3600.0, 9), (None, 9)])
def test_after_its_time_no_more_rows_are_begun(
    seconds: float | None, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Writer, "_at_once", lambda self: 2)
    model, text = tiny_model("llama"), random_blocks(2, 12)
    found = own_text(model, text, 7, seconds=seconds)
    assert len(found) == count
    assert np.array_equal(found.ids[:2], text.ids)
    assert found.source.endswith(f"and {count - 2} blocks of the model's own")


def test_placeholders_are_filled_whatever_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Writer, "_at_once", lambda self: 1)
    text = rows([0, 1, 4, 5, 6, 8, 2, 3], [0, 4, 5, 6, 1, 7, 5, 6])
    found = own_text(tiny_model("llama"), text, 5, tokenizer=Words(), seconds=0.0)
    assert len(found) == 2
    assert not np.isin(found.ids, [5]).any()


def test_a_placeholder_gives_way_to_words_and_all_else_stays_in_order() -> None:
    model = tiny_model("llama")
    text = rows([0, 1, 4, 5, 6, 8, 2, 3], [0, 4, 5, 6, 1, 7, 5, 6])
    found = own_text(model, text, 0, tokenizer=Words(), seed=3)
    assert found.ids.shape == (2, 8)
    for row, kept in zip(found.ids.tolist(), ([0, 1, None, 8, 2, 3], [0, None, 1, None]), strict=True):
        at = 0
        for token in kept:
            if token is not None:
                assert row[at] == token
                at += 1
                continue
            assert row[at] in (1, 2)
            at += 1
            while at < len(row) and row[at] == 3 and kept[-1] != 3:
                at += 1


def test_marks_stand_where_the_placeholder_did() -> None:
    placeholder = find_placeholder(Words(), rows([0, 1, 4, 5, 6, 8]), 10)
    assert placeholder is not None
    assert placeholder.marked(np.array([0, 4, 5, 6, 7, 5, 6, 5, 4])).tolist() == [0, -1, -1, 5, 4]
    assert np.flatnonzero(placeholder.begins).tolist() == [1, 2]
    assert np.flatnonzero(placeholder.goes_on).tolist() == [3, 5]


def test_a_rare_placeholder_is_ordinary_text() -> None:
    ordinary = [0, 1, 2, 3, 8] * 200
    assert find_placeholder(Words(), rows([*ordinary, 4, 5, 6]), 10) is None
    assert find_placeholder(None, rows([0, 4, 5, 6]), 10) is None


def test_a_word_ends_after_four_tokens_and_the_draft_goes_on() -> None:
    placeholder = Placeholder(((4, 5, 6),), np.eye(10, dtype=bool)[1], np.eye(10, dtype=bool)[3])
    writer = _Writer(_Says([3] * 9), placeholder, [], COLD, 8, 0)
    assert writer.rows([np.array([0, -1, 8, 2])]).tolist() == [[0, 1, 3, 3, 3, 8, 2, 3]]


def test_what_begins_or_ends_a_text_is_not_said() -> None:
    class Tokenizer(Words):
        all_special_ids = (0, 3)

    found = own_text(_Says([3] * 9), rows([0, 1, 2, 8]), 6, tokenizer=Tokenizer(), temperature=COLD)
    assert not np.isin(found.ids[:, 1:], [0, 3]).any()


def test_tokens_come_as_often_as_their_probability_says() -> None:
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5]).repeat(20_000, 1)
    writer = _Writer(_Says([1], 5), None, [], 1.5, 4, 7)
    counts = torch.bincount(writer._sample(logits.clone()), minlength=5).numpy()
    expected = np.exp(logits[0].double().numpy() / 1.5)
    assert chisquare(counts, 20_000 * expected / expected.sum()).pvalue > 1e-3


def test_the_same_seed_writes_the_same_and_another_something_else() -> None:
    model, text = tiny_model("llama"), random_blocks(4, 16)
    first, again, other = (own_text(model, text, 6, seed=seed).ids for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_others_than_the_first_begin_nothing() -> None:
    text = rows(*([i, *[8] * 7] for i in (1, 2, 3)))
    found = own_text(_Says([9] * 8), text, 40, begun_by=2, temperature=COLD)
    assert set(found.ids[3:, 0].tolist()) == {1, 2}


def test_a_smaller_prompt_leaves_more_to_the_model() -> None:
    text = random_blocks(3, 16, vocabulary=9)
    found = own_text(_Says([9] * 16), text, 50, prompt=0.25, temperature=COLD)
    begun = (found.ids[3:] != 9).sum(1)
    assert (begun.min(), begun.max()) == (1, 4)
    with pytest.raises(ArgumentError, match=r"up to 1\.5 of a block"):
        own_text(_Says([1]), text, 1, prompt=1.5)


def test_where_memory_runs_out_fewer_rows_are_written_at_once() -> None:
    text = random_blocks(4, 8, vocabulary=9)
    sizes: list[int] = []
    found = own_text(_Says([1] * 9, most=2, seen=sizes), text, 5)
    assert len(found) == 9
    assert sizes[:2] == [5, 2]
    with pytest.raises(MemoryBudgetError, match="Not even one row of 8 tokens"):
        own_text(_Says([1] * 9, most=0), text, 5)


def test_what_cannot_be_is_refused() -> None:
    text = random_blocks(2, 8, vocabulary=9)
    with pytest.raises(ArgumentError, match="-1 blocks"):
        own_text(_Says([1]), text, -1)
    with pytest.raises(ArgumentError, match="2 blocks to begin as, not 3"):
        own_text(_Says([1]), text, 1, begun_by=3)
    with pytest.raises(ArgumentError, match=r"temperature 0\.0"):
        own_text(_Says([1]), text, 1, temperature=0.0)
    with pytest.raises(UnsupportedModelError, match="does not hand on its keys and values"):
        own_text(_Says([1] * 9, keeps=False), text, 1)


def test_blocks_longer_than_the_context_are_refused_before_anything_is_written() -> None:
    with pytest.raises(TextError, match="context is 64 tokens"):
        own_text(tiny_model("gpt2"), random_blocks(2, 65), 1)


class _Says:
    """A model to which the tokens of ``script`` are the likeliest at each place."""

    dtype = torch.float32
    config = SimpleNamespace(num_attention_heads=1, hidden_size=1, num_hidden_layers=1)

    def __init__(
        self,
        script: list[int],
        vocabulary: int = 10,
        most: int = 100,
        seen: list[int] | None = None,
        keeps: bool = True,
    ) -> None:
        self.script, self.most, self.seen, self.keeps = script, most, seen, keeps
        self._embedding = torch.nn.Embedding(vocabulary, 1)

    def modules(self) -> tuple[()]:
        return ()

    def parameters(self) -> Any:
        return self._embedding.parameters()

    def get_input_embeddings(self) -> torch.nn.Embedding:
        return self._embedding

    def __call__(self, ids: torch.Tensor, past_key_values: Any, use_cache: bool) -> Any:
        if self.seen is not None:
            self.seen.append(len(ids))
        if len(ids) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        at = past_key_values.get_seq_length()
        if self.keeps:
            past_key_values.update(*torch.zeros(2, len(ids), 1, 1, 1), 0)
        logits = torch.zeros(len(ids), 1, self._embedding.num_embeddings)
        logits[..., self.script[min(at, len(self.script) - 1)]] = 1.0
        return SimpleNamespace(logits=logits)
