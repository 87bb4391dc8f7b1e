"""What a cut model learns from, and what judges it."""

from pathlib import Path

import numpy as np
import pytest

from scarprune.errors import ArgumentError
from scarprune.pipeline.lesson import lesson
from support.texts import random_blocks
from support.tiny_models import tiny_model

TEXT = random_blocks(32, 12)


def test_the_end_of_the_text_judges_and_own_text_is_written_from_the_rest() -> None:
    learned = lesson(tiny_model("llama"), None, TEXT, 40, seed=0)
    assert np.array_equal(learned.held_out.ids, TEXT.ids[30:])
    assert np.array_equal(learned.text.ids[:30], TEXT.ids[:30])
    assert (len(learned.text), learned.own) == (70, 40)
    begins = set(TEXT.ids[:30, 0].tolist()) - set(TEXT.ids[30:, 0].tolist())
    assert set(learned.text.ids[30:, 0].tolist()) <= set(TEXT.ids[:30, 0].tolist())
    assert begins & set(learned.text.ids[30:, 0].tolist())


@pytest.mark.parametrize(("own", "trains"), [(0, True), ("auto", True), ("auto", False)])
def test_without_a_gpu_nothing_is_written_unasked(own: int, trains: bool) -> None:
    learned = lesson(tiny_model("llama"), None, TEXT, own, seed=0, trains=trains)
    assert np.array_equal(learned.text.ids, TEXT.ids[:30])
    assert learned.own == 0


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    model, kept = tiny_model("llama"), tmp_path / "own.npz"
    first = lesson(model, None, TEXT, 5, seed=0, keep=kept)
    again = lesson(model, None, TEXT, 5, seed=1, keep=kept)
    assert again.text.fingerprint == first.text.fingerprint
    assert again.held_out.fingerprint == first.held_out.fingerprint
    assert lesson(model, None, TEXT, 5, seed=1).text.fingerprint != first.text.fingerprint


def test_fewer_than_none_is_refused() -> None:
    with pytest.raises(ArgumentError, match="-1 blocks of own text"):
        lesson(tiny_model("llama"), None, TEXT, -1, seed=0)
