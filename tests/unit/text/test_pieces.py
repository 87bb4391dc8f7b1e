"""Cutting, by hand."""

import numpy as np

from scarprune.text.pieces import cut_joined, cut_rows, cut_single
from scarprune.text.tokens import Tokens


def letters(text):
    """One token per letter."""
    return Tokens(text, np.array([ord(letter) for letter in text]), np.arange(1, len(text) + 1))


def rows(pieces):
    return ["".join(map(chr, pieces[i])) for i in range(len(pieces))]


def test_joined_with_a_separator():
    pieces = cut_joined(map(letters, ("abc", "", "de", "fghi")), 4, first_target=0, separator=ord("|"))
    assert rows(pieces) == ["abc|", "de|f"]  # "ghi" is too short
    assert pieces.bytes.tolist() == [3, 3]
    assert pieces.documents.tolist() == [[0, 0], [2, 3]]


def test_joined_without_one_and_without_bos():
    pieces = cut_joined(map(letters, ("abcd", "éf", "g海hi")), 4, first_target=1, separator=None)
    assert rows(pieces) == ["abcd", "éfg海"]
    assert pieces.bytes.tolist() == [3, 1 + 1 + 3]  # the first token of a piece is no target
    assert pieces.documents.tolist() == [[0, 0], [1, 2]]


def test_bytes_unknown_of_one_document_are_unknown_of_all():
    known, unknown = letters("abc"), Tokens("de", np.array([1, 2]), None)
    for documents in ([known, unknown], [unknown, known]):
        assert cut_joined(documents, 2, first_target=0, separator=None).bytes is None
        assert cut_single(documents, 2, first_target=0).bytes is None


def test_single():
    pieces = cut_single(map(letters, ("abcdef", "", "g", "海i")), 4, first_target=1)
    assert rows(pieces) == ["abcd", "海i"]
    assert pieces.bytes.tolist() == [3, 1]
    assert pieces.documents.tolist() == [[0, 0], [3, 3]]


def test_nothing_to_cut():
    for pieces in (
        cut_joined([], 4, first_target=0, separator=1),
        cut_joined([letters("abc")], 4, first_target=0, separator=1),
        cut_single([letters("a")], 4, first_target=1),
    ):
        assert len(pieces) == 0
        assert pieces.padded(1).shape == (0, 1)
        assert len(pieces.take(np.array([], dtype=int))) == 0


def test_padding_and_order():
    pieces = cut_single(map(letters, ("ab", "cde")), 4, first_target=0).take(np.array([1, 0]))
    assert pieces.padded(7).tolist() == [[7, 99, 100, 101], [7, 97, 98, 0]]
    assert pieces.padded().tolist() == [[99, 100, 101], [97, 98, 0]]


def test_rows():
    ids = np.arange(6).reshape(2, 3)
    assert cut_rows(ids).padded().tolist() == ids.tolist()
