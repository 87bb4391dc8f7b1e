"""Documents as token ids, with the bytes of text behind each token; of any size, in bounded memory."""

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from scarprune.runtime.progress import track

_CHUNK = 1 << 17  # characters of a long document that are tokenized as one
_OVERLAP = 1 << 11  # characters that neighbouring chunks share on each side of their seam
_AGREE = 32  # tokens on each side of a seam that both chunks must have alike
_BATCH = 1 << 21  # characters handed to the tokenizer at once; it needs about 150 bytes for each
_ROW = 256  # characters that a document of its own costs like


@dataclass(frozen=True, slots=True)
class Tokens:
    """One tokenized document.

    Attributes:
        text: the document.
        ids: int32 [n].
        ends: int64 [n], characters of ``text`` up to the end of each token, ascending; the last token's is
            the whole text. None where the tokenizer does not tell.
    """

    text: str
    ids: np.ndarray
    ends: np.ndarray | None

    def bytes_before(self, positions: Sequence[int]) -> list[int] | None:
        """UTF-8 bytes that the first j tokens stand for, for each j of the ascending ``positions``."""
        if self.ends is None:
            return None
        characters = np.concatenate(([0], self.ends))[np.asarray(positions, dtype=np.int64)]
        if self.text.isascii():
            return [int(end) for end in characters]
        sizes = [
            len(self.text[start:end].encode()) for start, end in itertools.pairwise([0, *characters.tolist()])
        ]
        return [int(total) for total in np.cumsum(sizes)]


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Characters ``start`` to ``stop`` of document ``document`` and, once encoded, their tokens.

    ``ends`` are counted from the document's start; empty where the tokenizer does not tell.
    """

    document: int
    start: int
    stop: int
    ids: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int32))
    ends: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))


def tokenize(documents: Sequence[str], tokenizer: Any, *, special: bool = False) -> Iterator[Tokens]:
    """Tokenize each document by itself, in order; ``special`` adds the tokenizer's own special tokens.

    A long document is tokenized in overlapping chunks, joined where neighbours say the same of the text
    around their seam; where they do not, it is tokenized whole. Either way it gets the ids of the whole.
    """
    size = _CHUNK if getattr(tokenizer, "is_fast", False) else sys.maxsize  # seams are found by offsets
    chunks = (chunk for i, text in enumerate(documents) for chunk in _split(i, len(text), size))
    with track("Tokenizing", sum(map(len, documents)), unit="characters") as advance:
        encoded = itertools.chain.from_iterable(
            _encode(batch, documents, tokenizer, special) for batch in _batches(chunks)
        )
        for document, parts in itertools.groupby(encoded, key=lambda chunk: chunk.document):
            text = documents[document]
            tokens = _join(list(parts), text)
            if tokens is None:
                whole = _Chunk(document, 0, len(text))
                tokens = _join(_encode([whole], documents, tokenizer, special), text)
                assert tokens is not None
            yield tokens
            advance(len(text))


def _split(document: int, length: int, size: int) -> Iterator[_Chunk]:
    for seam in range(0, max(length, 1), size):
        yield _Chunk(document, max(0, seam - _OVERLAP), min(length, seam + size + _OVERLAP))


def _batches(chunks: Iterable[_Chunk]) -> Iterator[list[_Chunk]]:
    batch: list[_Chunk] = []
    characters = 0
    for chunk in chunks:
        batch.append(chunk)
        characters += chunk.stop - chunk.start + _ROW
        if characters >= _BATCH:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _encode(batch: list[_Chunk], documents: Sequence[str], tokenizer: Any, special: bool) -> list[_Chunk]:
    encoded = tokenizer(
        [documents[chunk.document][chunk.start : chunk.stop] for chunk in batch],
        add_special_tokens=special,
        padding=False,
        truncation=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    encodings = encoded.encodings or [None] * len(batch)
    return [
        replace(chunk, ids=np.asarray(ids, dtype=np.int32), ends=_ends(encoding, chunk.start))
        for chunk, ids, encoding in zip(batch, encoded["input_ids"], encodings, strict=True)
    ]


def _ends(encoding: Any | None, start: int) -> np.ndarray:
    """Where tokens end; a special token stands for no text and ends where the one before it does."""
    if encoding is None:
        return np.empty(0, dtype=np.int64)
    ends = np.fromiter((end for _, end in encoding.offsets), dtype=np.int64)
    return np.maximum.accumulate(start + ends)


def _join(chunks: list[_Chunk], text: str) -> Tokens | None:
    """The tokens of a whole document, or None where two neighbouring chunks do not meet."""
    begin, ids, ends = 0, [], []
    for left, right in itertools.pairwise(chunks):
        meeting = _meet(left, right)
        if meeting is None:
            return None
        ids.append(left.ids[begin : meeting[0]])
        ends.append(left.ends[begin : meeting[0]])
        begin = meeting[1]
    all_ids = np.concatenate([*ids, chunks[-1].ids[begin:]])
    all_ends = np.concatenate([*ends, chunks[-1].ends[begin:]])
    if len(all_ends) < len(all_ids):
        return Tokens(text, all_ids, None)
    all_ends[-1:] = len(text)  # what a tokenizer strips from the end belongs to the last token
    return Tokens(text, all_ids, all_ends)


def _meet(left: _Chunk, right: _Chunk) -> tuple[int, int] | None:
    """Where ``left`` ends and ``right`` goes on: the first token past their seam, if both agree around it."""
    seam = right.start + _OVERLAP
    i, j = int(np.searchsorted(left.ends, seam)), int(np.searchsorted(right.ends, seam))
    if i < _AGREE or j < _AGREE:
        return None
    near, far = slice(i - _AGREE, i + _AGREE), slice(j - _AGREE, j + _AGREE)
    same = np.array_equal(left.ids[near], right.ids[far]) and np.array_equal(left.ends[near], right.ends[far])
    return (i, j) if same else None
