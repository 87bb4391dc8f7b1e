import numpy as np
import pytest

from scarprune.errors import TextError
from scarprune.text.blocks import Blocks
from scarprune.text.fit import check_fits


def blocks_of(ids, lengths):
    return Blocks(np.array(ids), np.array(lengths), None, "tokens", "test")


def test_what_fits():
    check_fits(blocks_of([[1, 9, 3], [0, 2, 50]], [3, 2]), vocab_size=10, context=3)
    check_fits(blocks_of([[1, 9, 3]], [3]), vocab_size=10, context=None)


@pytest.mark.parametrize("bad", [10, -1])
def test_an_id_outside_the_vocabulary_is_named(bad):
    with pytest.raises(TextError, match=rf"Block 1 holds the token id {bad}, .* has 10 ids"):
        check_fits(blocks_of([[1, 2, 3], [4, bad, 5]], [3, 3]), vocab_size=10, context=None)


def test_a_block_longer_than_the_context_gives_both_numbers():
    with pytest.raises(TextError, match=r"3 tokens long, but the model's context is 2 tokens.*--length 2"):
        check_fits(blocks_of([[1, 2, 3], [4, 5, 0]], [3, 2]), vocab_size=10, context=2)
