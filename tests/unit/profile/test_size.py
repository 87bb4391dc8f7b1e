"""Sizes of profiles against profiles."""

import numpy as np
import pytest

from scarprune.models.find import find_sites
from scarprune.profile.accumulate import SumsPass
from scarprune.profile.run import profile_model
from scarprune.profile.size import cross_bytes, file_bytes, sums_bytes
from scarprune.profile.statistics.statistic import statistics
from scarprune.text.blocks import Blocks
from support.tiny_models import HIDDEN, LAYERS, WIDTH, tiny_model


@pytest.mark.parametrize(
    ("family", "labels", "kinds"), [("llama", "data", 1), ("gpt2", "data", 1), ("llama", "both", 2)]
)
def test_a_file_has_the_bytes_that_were_said(family, labels, kinds):
    ids = np.random.default_rng(0).integers(3, 96, size=(4, 12))
    blocks = Blocks(ids=ids, lengths=np.full(4, 12), bytes=None, protocol="tokens", source="test")
    profile = profile_model(tiny_model(family), blocks, labels=labels)
    found = file_bytes([WIDTH] * LAYERS, [1] * LAYERS, HIDDEN, gated=family == "llama", kinds=kinds)
    assert sum(tensor.nbytes for tensor in profile.tensors.values()) == found


def test_sums_in_memory_are_counted_twice_over_as_float64_and_float32():
    # 7 banded sums, 4 of blocks, 2 by 8 groups; of the activations 2 banded, 1 by 4 groups, 2 statistics.
    assert sums_bytes([10, 6]) == 12 * 16 * (7 * 3 + 4 + 2 * 8 + 2 * 3 + 4 + 2)
    assert cross_bytes([10, 6], [2, 1]) == 12 * (20 + 6)


def test_rows_are_those_that_a_pass_keeps():
    model = tiny_model("llama")
    found = SumsPass(find_sites(model), statistics())._rows
    rows = sum(count for kind in ("data", "shared") for _, count in found[kind])
    assert sums_bytes([1]) == 12 * rows
