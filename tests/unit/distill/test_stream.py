"""Batches that cut the text anew in every epoch."""

import numpy as np
import pytest
import torch

from scarprune.distill.stream import Stream
from scarprune.errors import TextError
from scarprune.text.blocks import Blocks

CPU = torch.device("cpu")


def counting(blocks: int, length: int, bos: bool = True) -> Blocks:
    """Blocks whose text is 100, 101, 102 ..., with BOS 1 in front of each."""
    lead = int(bos)
    ids = 100 + np.arange(blocks * (length - lead)).reshape(blocks, -1)
    if bos:
        ids = np.concatenate([np.ones((blocks, 1), dtype=np.int64), ids], axis=1)
    return Blocks(ids, np.full(blocks, length), None, "packed", "test", bos=bos)


def epoch(stream: Stream, number: int) -> np.ndarray:
    return stream.take(stream.where(number * stream.pieces, stream.pieces)).numpy()


def test_every_block_is_bos_and_a_run_of_the_text() -> None:
    rows = epoch(Stream(counting(6, 9), CPU), 0)
    assert rows.shape[1] == 9
    assert (rows[:, 0] == 1).all()
    assert (np.diff(rows[:, 1:]) == 1).all()


def test_an_epoch_reads_no_token_twice_and_all_but_two_blocks_at_most() -> None:
    stream = Stream(counting(10, 9), CPU)
    read = epoch(stream, 3)[:, 1:].ravel()
    assert len(np.unique(read)) == len(read) >= 80 - 2 * 8
    assert read.min() >= 100
    assert read.max() < 180


def test_epochs_cut_at_other_places() -> None:
    stream = Stream(counting(10, 9), CPU)
    offsets = {int(epoch(stream, number)[:, 1].min()) for number in range(12)}
    assert len(offsets) > 3


def test_cuttings_come_again_in_another_order() -> None:
    stream = Stream(counting(10, 9), CPU, cuts=2)
    first, other, again = (epoch(stream, number) for number in range(3))
    assert not np.array_equal(first, again)
    np.testing.assert_array_equal(np.sort(first[:, 1]), np.sort(again[:, 1]))
    assert set(first[:, 1]) != set(other[:, 1])


def test_a_block_depends_on_its_number_alone() -> None:
    one, other = Stream(counting(10, 9), CPU, seed=5), Stream(counting(10, 9), CPU, seed=5)
    epoch(other, 4)
    np.testing.assert_array_equal(one.take(one.where(13, 3)), other.take(other.where(13, 3)))
    assert not np.array_equal(epoch(Stream(counting(10, 9), CPU, seed=6), 0), epoch(one, 0))


def test_blocks_without_bos_are_whole_runs() -> None:
    rows = epoch(Stream(counting(5, 8, bos=False), CPU), 0)
    assert (np.diff(rows) == 1).all()


def test_padding_is_no_text() -> None:
    blocks = counting(3, 9)
    short = Blocks(blocks.ids, np.array([9, 5, 9]), None, "documents", "test", bos=True)
    stream = Stream(short, CPU)
    read = {token for number in range(9) for token in epoch(stream, number)[:, 1:].ravel()}
    assert read <= {*range(100, 112), *range(116, 124)}


def test_one_block_is_enough_and_none_is_not() -> None:
    stream = Stream(counting(1, 9), CPU)
    np.testing.assert_array_equal(epoch(stream, 7), counting(1, 9).ids)
    with pytest.raises(TextError, match="no whole block"):
        Stream(counting(2, 9).take(np.arange(0)), CPU)
