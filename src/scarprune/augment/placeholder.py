"""The placeholder that some public texts have for rare words: where it stands, and what may stand there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scarprune.text.blocks import Blocks

PLACEHOLDER = "<unk>"  # of WikiText and the Penn Treebank
_NOTICED = 0.005  # of all tokens; below it a placeholder is no matter
_WORD_MARKS = ("Ġ", "▁")  # what byte-level and SentencePiece vocabularies begin a word with


@dataclass(frozen=True)
class Placeholder:
    """A word that stands for others.

    Attributes:
        spellings: its tokens, with a space before it and without.
        begins: bool [V], tokens that begin a word of letters.
        goes_on: bool [V], tokens of letters that go on with a word.
    """

    spellings: tuple[tuple[int, ...], ...]
    begins: np.ndarray
    goes_on: np.ndarray

    def marked(self, row: np.ndarray) -> np.ndarray:
        """``row`` [T] with -1 in place of each placeholder's tokens, and so shorter."""
        left: list[int] = row.tolist()
        out: list[int] = []
        at = 0
        while at < len(left):
            found = next((s for s in self.spellings if tuple(left[at : at + len(s)]) == s), None)
            out.append(left[at] if found is None else -1)
            at += 1 if found is None else len(found)
        return np.array(out, dtype=np.int64)


def find_placeholder(tokenizer: Any | None, blocks: Blocks, vocabulary: int) -> Placeholder | None:
    """The placeholder of ``blocks``, where half a percent of their tokens are its; None for ordinary text."""
    if tokenizer is None:
        return None
    encoded = [
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in (f" {PLACEHOLDER}", PLACEHOLDER)
    ]
    spellings = tuple(dict.fromkeys(tuple(ids) for ids in encoded if ids))
    rows = [row[:end] for row, end in zip(blocks.ids, blocks.lengths, strict=True)]
    tokens = sum(len(spelling) * _count(row, spelling) for spelling in spellings[:1] for row in rows)
    if tokens < _NOTICED * int(blocks.lengths.sum()):
        return None
    begins, goes_on = np.zeros(vocabulary, dtype=bool), np.zeros(vocabulary, dtype=bool)
    for token, index in tokenizer.get_vocab().items():
        word = token.removeprefix(_WORD_MARKS[0]).removeprefix(_WORD_MARKS[1])
        if word.isalpha() and index < vocabulary:
            (goes_on if word == token else begins)[index] = True
    return Placeholder(spellings, begins, goes_on) if begins.any() else None


def _count(row: np.ndarray, spelling: Sequence[int]) -> int:
    if len(row) < len(spelling):
        return 0
    windows = np.lib.stride_tricks.sliding_window_view(row, len(spelling))
    return int((windows == np.array(spelling)).all(axis=1).sum())
