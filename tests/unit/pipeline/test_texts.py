"""What a prune measures on and judges on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scarprune.errors import TextError
from scarprune.pipeline.inputs import Reading
from scarprune.pipeline.texts import read_texts
from scarprune.profile.sums import Profile
from scarprune.text.blocks import Blocks
from support.tokenizers import byte_level

LENGTH = 16


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return byte_level()


@pytest.fixture
def text(tmp_path: Path) -> str:
    """About 120 blocks of 16 tokens, no two alike."""
    words = np.random.default_rng(0).integers(0, 10_000, 500)
    path = tmp_path / "text.txt"
    path.write_text(" ".join(f"sea{word}" for word in words))
    return str(path)


def _rows(blocks: Blocks) -> set[bytes]:
    return {row.tobytes() for row in blocks.ids}


def _profile_of(*blocks: Blocks) -> Profile:
    """A profile that says it was measured on ``blocks``; nothing else of it is read here."""
    texts = [
        {
            "source": each.source,
            "protocol": each.protocol,
            "blocks": len(each),
            "length": int(each.lengths.max()),
            "seed": each.seed,
            "bos": each.bos,
            "fingerprint": each.fingerprint,
        }
        for each in blocks
    ]
    return Profile(sites=[], header={"text": texts}, tensors={})


def test_judging_takes_up_to_64_blocks_that_measuring_did_not(tokenizer: Any, text: str) -> None:
    texts = read_texts(tokenizer, Reading(LENGTH), text=text, evaluation=None, profile=None, count=20)
    assert texts.calibration is not None
    assert len(texts.calibration) == 20
    assert len(texts.evaluation) == 64
    assert not _rows(texts.calibration) & _rows(texts.evaluation)


def test_all_that_is_left_is_taken_and_little_is_said_to_be_little(
    tokenizer: Any, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    total = len(Reading(LENGTH).blocks(text, tokenizer, None))
    texts = read_texts(tokenizer, Reading(LENGTH), text=text, evaluation=None, profile=None, count=total - 3)
    assert len(texts.evaluation) == 3
    said = capsys.readouterr().err
    assert "Only 3 blocks are left to judge on" in said
    assert "--eval" in said


def test_nothing_left_to_judge_on_is_an_error_that_names_eval(tokenizer: Any, text: str) -> None:
    total = len(Reading(LENGTH).blocks(text, tokenizer, None))
    with pytest.raises(TextError, match=rf"Measuring takes all {total} blocks of .*--eval"):
        read_texts(tokenizer, Reading(LENGTH), text=text, evaluation=None, profile=None, count=total)


def test_a_text_to_judge_on_is_read_whole(tokenizer: Any, text: str, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("a boat returned " * 100)
    texts = read_texts(tokenizer, Reading(LENGTH), text=text, evaluation=str(other), profile=None, count=8)
    assert texts.evaluation.fingerprint == Reading(LENGTH).blocks(str(other), tokenizer, None).fingerprint
    assert texts.overlap == 0.0


def test_as_many_blocks_are_judged_on_as_are_asked_for(tokenizer: Any, text: str, tmp_path: Path) -> None:
    for evaluation in (None, text):
        texts = read_texts(
            tokenizer,
            Reading(LENGTH),
            text=text,
            evaluation=evaluation,
            profile=None,
            count=20,
            evaluation_count=5,
        )
        assert len(texts.evaluation) == 5
    with pytest.raises(TextError, match="not 0"):
        read_texts(
            tokenizer, Reading(LENGTH), text=text, evaluation=None, profile=None, count=20, evaluation_count=0
        )


def test_common_text_is_said(tokenizer: Any, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    texts = read_texts(tokenizer, Reading(64), text=text, evaluation=text, profile=None, count=8)
    assert texts.overlap is not None
    assert 0.1 < texts.overlap < 1
    assert f"{texts.overlap:.1%} of the evaluation text" in capsys.readouterr().err


def test_a_given_profile_tells_which_blocks_are_used(tokenizer: Any, text: str) -> None:
    measured = Reading(LENGTH, seed=3).blocks(text, tokenizer, 20)
    texts = read_texts(tokenizer, Reading(), text=None, evaluation=None, profile=_profile_of(measured))
    assert texts.calibration is not None
    assert texts.calibration.fingerprint == measured.fingerprint
    assert len(texts.evaluation) == 64
    assert not _rows(measured) & _rows(texts.evaluation)


def test_a_profile_whose_text_is_gone_needs_eval(tokenizer: Any, text: str) -> None:
    profile = _profile_of(Reading(LENGTH).blocks(text, tokenizer, 20))
    Path(text).unlink()
    with pytest.raises(TextError, match=r"cannot be read again.*--eval"):
        read_texts(tokenizer, Reading(), text=None, evaluation=None, profile=profile)


def test_a_profile_of_changed_text_needs_eval(tokenizer: Any, text: str) -> None:
    profile = _profile_of(Reading(LENGTH).blocks(text, tokenizer, 20))
    Path(text).write_text("something else " * 200)
    with pytest.raises(TextError, match=r"cannot be read again.*--eval"):
        read_texts(tokenizer, Reading(), text=None, evaluation=None, profile=profile)


def test_a_profile_of_several_texts_needs_eval_or_text(tokenizer: Any, text: str) -> None:
    blocks = Reading(LENGTH).blocks(text, tokenizer, 20)
    profile = _profile_of(blocks, blocks)
    with pytest.raises(TextError, match=r"cannot be read again.*--eval"):
        read_texts(tokenizer, Reading(), text=None, evaluation=None, profile=profile)
    texts = read_texts(tokenizer, Reading(), text=text, evaluation=None, profile=profile)
    assert (texts.calibration, texts.overlap) == (None, None)
    assert len(texts.evaluation) == 64
