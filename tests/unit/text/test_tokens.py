"""Tokenizing by chunks gives what tokenizing whole documents gives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, normalizers

from scarprune.text import tokens as tokens_module
from scarprune.text.tokens import Tokens, _Chunk, tokenize
from support.tokenizers import SENTENCES, byte_level, marked_words

BYTE_LEVEL, MARKED = byte_level(), marked_words()


def long_text(seed, sentences=300):
    rng = np.random.default_rng(seed)
    words = " ".join(SENTENCES).split()
    ends = [" ", " ", " ", "\n", "\n\n", "  "]
    return "".join(
        words[rng.integers(len(words))] + ends[rng.integers(len(ends))] for _ in range(sentences * 10)
    )


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(tokens_module, "_CHUNK", 1000)
    monkeypatch.setattr(tokens_module, "_OVERLAP", 300)
    monkeypatch.setattr(tokens_module, "_BATCH", 5000)


def whole(text, tokenizer, special=False):
    encoded = tokenizer(text, add_special_tokens=special)
    return encoded["input_ids"], encoded.encodings[0].offsets


@pytest.fixture
def joins(monkeypatch):
    """(number of chunks, whether they met) of every document."""
    seen, join = [], tokens_module._join

    def watched(chunks, text):
        tokens = join(chunks, text)
        seen.append((len(chunks), tokens is not None))
        return tokens

    monkeypatch.setattr(tokens_module, "_join", watched)
    return seen


@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, MARKED], ids=["byte level", "marked words"])
@pytest.mark.parametrize("special", [False, True])
def test_chunks_join_to_the_tokens_of_the_whole(small_chunks, joins, tokenizer, special):
    documents = [long_text(1), "short", "", long_text(2), SENTENCES[3]]
    found = list(tokenize(documents, tokenizer, special=special))
    assert [chunks > 10 for chunks, _ in joins] == [True, False, False, True, False]
    assert all(met for _, met in joins)
    for tokens, text in zip(found, documents, strict=True):
        ids, offsets = whole(text, tokenizer, special)
        assert tokens.text == text
        assert tokens.ids.tolist() == ids
        ends = [end for _, end in offsets]
        assert tokens.ends.tolist() == ([*ends[:-1], len(text)] if ends else [])


def test_a_text_whose_chunks_do_not_meet_is_tokenized_whole(small_chunks, joins):
    # One word whose letters pair up from where it begins: in the whole at 1, in a chunk at an even place.
    tokenizer = byte_level(vocabulary=259)
    tokenizer.backend_tokenizer.model = models.BPE(vocab={"a": 0, "b": 1, "aa": 2}, merges=[("a", "a")])
    (tokens,) = tokenize(["b" + "a" * 5000], tokenizer)
    assert tokens.ids.tolist() == [1] + [2] * 2500
    assert joins == [(6, False), (1, True)]


def test_too_few_tokens_before_a_seam_settle_nothing(small_chunks):
    ids, ends = np.arange(100), 1000 + np.arange(100)
    left, right = _Chunk(0, 0, 1300, ids, ends), _Chunk(0, 700, 2000, ids + 1, ends)
    assert tokens_module._meet(left, right) is None


def test_what_a_tokenizer_strips_belongs_to_the_last_token():
    tokenizer = byte_level()
    tokenizer.backend_tokenizer.normalizer = normalizers.Strip()
    (tokens,) = tokenize(["  The sea\n\n"], tokenizer)
    assert tokens.bytes_before([0, len(tokens.ids)]) == [0, 11]


@given(st.text(alphabet="the sawolé海🐟 .\n", max_size=400))
@settings(max_examples=60, deadline=None)
def test_the_bytes_of_a_documents_tokens_are_all_its_bytes(text):
    for tokenizer in (BYTE_LEVEL, MARKED):
        (tokens,) = tokenize([text], tokenizer)
        if not len(tokens.ids):
            continue
        covered = tokens.bytes_before(range(len(tokens.ids) + 1))
        assert covered[0] == 0
        assert covered[-1] == len(text.encode())
        assert (np.diff(covered) >= 0).all()


def test_bytes_before_by_hand():
    tokens = Tokens("aé海b", np.array([5, 6, 7, 8]), np.array([1, 2, 2, 4]))
    # "a" 1 byte, "é" 2, "海" 3, "b" 1; the third token is the rest of a character the second began
    assert tokens.bytes_before([0, 1, 2, 3, 4]) == [0, 1, 3, 3, 7]
    assert tokens.bytes_before([2, 2, 4]) == [3, 3, 7]


def test_ascii_bytes_are_characters():
    assert Tokens("abcd", np.array([5, 6]), np.array([3, 4])).bytes_before([0, 1, 2]) == [0, 3, 4]


class SlowTokenizer:
    """What a tokenizer written in Python answers: ids, and no encodings to tell offsets."""

    is_fast = False
    bos_token_id, eos_token_id = 1, 2

    def __call__(self, texts, **options):
        class Answer(dict):
            encodings = None

        return Answer(input_ids=[[ord(letter) for letter in text] for text in texts])


def test_without_offsets_the_bytes_are_unknown(small_chunks):
    text = "abc" * 1000
    (tokens,) = tokenize([text], SlowTokenizer())
    assert tokens.ids.tolist() == [ord(letter) for letter in text]
    assert tokens.ends is None
    assert tokens.bytes_before([0, 1]) is None
