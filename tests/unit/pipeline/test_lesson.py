"""What a cut model learns from, and what judges it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from scarprune.augment.own_text import _Writer
from scarprune.errors import ArgumentError, ArtifactError, UnsupportedModelError
from scarprune.pipeline import lesson as module
from scarprune.pipeline.lesson import lesson
from scarprune.runtime.ranks import Ranks
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


@pytest.mark.parametrize("own", [0, "auto"])
def test_without_a_gpu_nothing_is_written_unasked(own: int | str) -> None:
    learned = lesson(tiny_model("llama"), None, TEXT, own, seed=0)
    assert np.array_equal(learned.text.ids, TEXT.ids[:30])
    assert learned.own == 0


@pytest.mark.parametrize("auto", [0, 3])
def test_on_a_gpu_auto_is_what_suits_the_training(auto: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "input_device", lambda model: torch.device("cuda"))
    learned = lesson(tiny_model("llama"), None, TEXT, "auto", seed=0, auto=auto)
    assert (learned.own, len(learned.text)) == (auto, 30 + auto)


def test_text_that_takes_longer_to_write_than_to_learn_is_shorter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "input_device", lambda model: torch.device("cuda"))
    monkeypatch.setattr(_Writer, "_at_once", lambda self: 4)
    for _ in range(2):  # written, then read
        learned = lesson(
            tiny_model("llama"), None, TEXT, "auto", 0, auto=9, seconds=0.0, keep=tmp_path / "own.npz"
        )
        assert (learned.own, len(learned.text), len(learned.held_out)) == (3, 33, 2)
    assert "3 blocks more to learn from" in capsys.readouterr().err
    asked = lesson(tiny_model("llama"), None, TEXT, 9, seed=0, seconds=0.0)
    assert asked.own == 9


def test_all_processes_learn_from_what_the_first_has_written() -> None:
    sent = [np.arange(41 * 12).reshape(41, 12), np.full(41, 12)]

    class Second(Ranks):
        first = property(lambda self: False)  # type: ignore[assignment]
        agree = staticmethod(lambda value: 41)  # type: ignore[assignment]

        def hand_out(self, tensor: torch.Tensor) -> None:
            tensor.copy_(torch.from_numpy(sent.pop(0)))

    learned = lesson(tiny_model("llama"), None, TEXT, 5, seed=0, ranks=Second())
    assert learned.own == 9
    assert learned.held_out.ids[:, 0].tolist() == [30 * 12, 31 * 12]
    assert learned.text.ids[-1].tolist() == list(range(40 * 12, 41 * 12))


def test_what_was_written_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, kept = tiny_model("llama"), tmp_path / "own.npz"
    first = lesson(model, None, TEXT, 5, seed=0, keep=kept)
    assert lesson(model, None, TEXT, 5, seed=1).text.fingerprint != first.text.fingerprint
    monkeypatch.delattr(module, "own_text")
    again = lesson(model, None, TEXT, 5, seed=0, keep=kept)
    assert again.text.fingerprint == first.text.fingerprint
    assert again.held_out.fingerprint == first.held_out.fingerprint


@pytest.mark.parametrize(("own", "seed"), [(6, 0), (5, 1)])
def test_what_was_written_for_something_else_is_refused(own: int, seed: int, tmp_path: Path) -> None:
    lesson(tiny_model("llama"), None, TEXT, 5, seed=0, keep=tmp_path / "own.npz")
    with pytest.raises(ArtifactError, match=f"5 blocks of own text of seed 0, not {own} of seed {seed}"):
        lesson(tiny_model("llama"), None, TEXT, own, seed=seed, keep=tmp_path / "own.npz")


def test_what_was_written_of_another_text_or_by_another_model_is_refused(tmp_path: Path) -> None:
    model, kept = tiny_model("llama"), tmp_path / "own.npz"
    lesson(model, None, TEXT, 5, seed=0, keep=kept)
    with pytest.raises(ArtifactError, match="own text of another text"):
        lesson(model, None, random_blocks(32, 12, seed=1), 5, seed=0, keep=kept)
    with pytest.raises(ArtifactError, match="own text of another model"):
        lesson(tiny_model("llama", seed=1), None, TEXT, 5, seed=0, keep=kept)


def test_a_model_that_cannot_write_learns_from_the_text_alone_unless_it_was_asked_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def cannot(*args: object, **options: object) -> None:
        raise UnsupportedModelError("It does not write.")

    monkeypatch.setattr(module, "own_text", cannot)
    monkeypatch.setattr(module, "input_device", lambda model: torch.device("cuda"))
    learned = lesson(tiny_model("llama"), None, TEXT, "auto", seed=0)
    assert (learned.own, len(learned.text), len(learned.held_out)) == (0, 30, 2)
    assert "It does not write." in capsys.readouterr().err
    with pytest.raises(UnsupportedModelError, match="It does not write"):
        lesson(tiny_model("llama"), None, TEXT, 4, seed=0)


def test_fewer_than_none_is_refused() -> None:
    with pytest.raises(ArgumentError, match="-1 blocks of own text"):
        lesson(tiny_model("llama"), None, TEXT, -1, seed=0)
