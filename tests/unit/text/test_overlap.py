"""Shared n-grams, against sets of tuples."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from scarprune.text.blocks import Blocks
from scarprune.text.overlap import overlap


def blocks_of(rows, bos=False):
    width = max(map(len, rows))
    ids = np.array([[*row, *[0] * (width - len(row))] for row in rows])
    return Blocks(ids, np.array(list(map(len, rows))), None, "tokens", "test", bos=bos)


def by_sets(a, b, n):
    def grams(rows):
        return [tuple(row[i : i + n]) for row in rows for i in range(len(row) - n + 1)]

    theirs, ours = grams(b), set(grams(a))
    return sum(gram in ours for gram in theirs) / len(theirs) if theirs else 0.0


rows = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=6)


@given(rows, rows, st.integers(1, 4))
def test_the_share_of_b_that_is_in_a(a, b, n):
    assert overlap(blocks_of(a), blocks_of(b), n) == by_sets(a, b, n)


@given(rows, rows)
def test_a_bos_in_front_is_part_of_no_ngram(a, b):
    a, b = ([[7, *row] for row in side] for side in (a, b))
    expected = by_sets([row[1:] for row in a], [row[1:] for row in b], 2)
    assert overlap(blocks_of(a, bos=True), blocks_of(b, bos=True), 2) == expected


def test_a_text_is_all_in_itself_and_thirteen_is_the_default():
    rows = np.random.default_rng(0).integers(0, 5000, (4, 40)).tolist()
    assert overlap(blocks_of(rows), blocks_of(rows)) == 1.0
    shifted = [[*row[:20], 6000, *row[21:]] for row in rows]  # of 28 windows, 13 hold position 20
    assert overlap(blocks_of(rows), blocks_of(shifted)) == 15 / 28
    assert overlap(blocks_of(rows), blocks_of([row[:12] for row in rows])) == 0.0
