"""``scarprune heal``: what it writes, how it goes on after Ctrl-C, and what it refuses."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from scarprune.cli.main import run
from scarprune.distill.train import Training
from scarprune.text.blocks import read_blocks
from support.tiny_models import tiny_model
from support.tokenizers import byte_level

Run = Callable[..., Any]
QUICK = ("--length", 32, "--steps", 6, "--batch", 4, "--lr", 2e-3, "--quiet")


@pytest.fixture(scope="module")
def small(tiny: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pruned") / "small"
    words = ("prune", tiny, out, "--sparsity", 0.5, "--text", text, "--blocks", 16, "--length", 32)
    # By a score that leaves these six steps something to mend.
    chosen = ("--score", "scar_prot", "--multiple-of", 1, "--quiet")
    assert run([str(word) for word in (*words, *chosen)]) == 0
    return out


@pytest.fixture
def heal(scarprune: Run, small: Path, tiny: Path, text: Path, tmp_path: Path) -> Run:
    """``heal("--lr", 1)``: the cut tiny model towards the whole one, written to ``out``."""

    def call(*options: object, teacher: Path = tiny) -> Any:
        return scarprune(
            "heal", small, "--teacher", teacher, "--text", text, "--out", tmp_path / "out", *QUICK, *options
        )

    return call


def logits(folder: Path, text: Path) -> torch.Tensor:
    """Log probabilities that stock transformers computes on some blocks of the text."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.from_numpy(read_blocks(text, byte_level(), 8, 32).ids)
    with torch.no_grad():
        return model(ids).logits.log_softmax(-1)


def test_what_the_teacher_writes_is_learned_from_too(heal: Run, tmp_path: Path) -> None:
    result = heal("--own-text", 40, "--steps", 1, "--json", tmp_path / "heal.json")
    assert result.code == 0, result.err
    assert json.loads((tmp_path / "heal.json").read_text())["own_text"] == 40
    assert not (tmp_path / "out.partial").exists()


def test_heal_writes_a_checkpoint_of_the_same_size_that_is_closer_to_the_teacher(
    heal: Run, small: Path, tiny: Path, text: Path, tmp_path: Path
) -> None:
    result = heal("--json", tmp_path / "heal.json", "--eval", "demo", "--eval-blocks", 2)
    assert result.code == 0, result.err
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {path.name for path in small.iterdir()} | {"scarprune-heal.json"}
    assert not (tmp_path / "out.partial").exists()

    found = json.loads((tmp_path / "heal.json").read_text())
    assert found["format"] == "scarprune.heal"
    assert found == json.loads((tmp_path / "out" / "scarprune-heal.json").read_text())
    assert found["held_out_nats_after"] < found["held_out_nats_before"]
    assert found["tokens"] == 6 * 4 * 32
    assert found["own_text"] == 0
    assert found["tokens_per_second"] > 0
    assert found["settings"]["lr"] == 2e-3
    dense, before, after = (found[key]["perplexity"] for key in ("dense", "before", "after"))
    assert found["before"]["excess_nats"] == pytest.approx(np.log(before / dense))
    assert found["after"]["excess_nats"] == pytest.approx(np.log(after / dense))
    assert "divergence" in result.out

    wanted, was, now = (logits(folder, text) for folder in (tiny, small, tmp_path / "out"))
    far = [float((wanted.exp() * (wanted - other)).sum(-1).mean()) for other in (was, now)]
    assert far[1] < far[0]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "then trained on 768 tokens" in card
    assert f"**{tiny.name}** with 50.0%" in card


def test_the_output_goes_beside_the_small_model(
    scarprune: Run, small: Path, tiny: Path, text: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "mine"
    copied.symlink_to(small)
    assert scarprune("heal", copied, "--teacher", tiny, "--text", text, *QUICK).code == 0
    assert (tmp_path / "mine-healed" / "model.safetensors").is_file()


def test_an_interrupted_heal_goes_on(heal: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Training._step

    def until(self: Training, rate: float) -> None:
        if self.state.step == 3:
            raise KeyboardInterrupt
        whole(self, rate)

    monkeypatch.setattr(Training, "_step", until)
    result = heal()
    assert result.code == 130
    assert "out.partial" in result.err
    assert "--resume goes on" in result.err
    assert [path.name for path in (tmp_path / "out.partial").iterdir()] == ["heal.state"]
    monkeypatch.setattr(Training, "_step", whole)
    result = heal("--resume", "--json", "-")
    assert result.code == 0
    assert json.loads(result.out)["steps"] == 6
    assert not (tmp_path / "out.partial").exists()


def test_what_does_not_help_is_not_kept(heal: Run, small: Path, text: Path, tmp_path: Path) -> None:
    result = heal("--lr", 5, "--json", tmp_path / "heal.json")
    assert result.code == 0
    assert "as they came" in result.out
    assert json.loads((tmp_path / "heal.json").read_text())["improved"] is False
    assert torch.equal(logits(tmp_path / "out", text), logits(small, text))
    assert "did not help" in (tmp_path / "out" / "README.md").read_text()


def test_an_output_that_is_there_is_refused_before_anything_is_loaded(heal: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    result = heal()
    assert result.code == 1
    assert "already there" in result.err


def test_the_output_may_not_be_the_teacher(scarprune: Run, small: Path, tiny: Path, text: Path) -> None:
    result = scarprune("heal", small, "--teacher", tiny, "--text", text, "--out", tiny, "--overwrite", *QUICK)
    assert result.code == 1
    assert "is the source itself" in result.err
    assert (tiny / "model.safetensors").is_file()


def test_a_teacher_with_other_tokens_is_refused(heal: Run, tmp_path: Path) -> None:
    other = tmp_path / "other"
    tiny_model("llama", vocab_size=400).save_pretrained(other)
    tokenizer = byte_level()
    tokenizer.add_tokens(["extra"])
    tokenizer.save_pretrained(other)
    result = heal(teacher=other)
    assert result.code == 1
    assert "teacher's tokenizer has other tokens" in result.err
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--steps", 0), 1, "budget of steps must be positive, not 0"),
        (("--seconds", "soon"), 2, "'soon' is not a valid float"),
        (("--micro", "all"), 2, "neither auto nor a whole number"),
        (("--compile", "everything"), 1, "compile is auto, none, objective or layers, not 'everything'"),
        (("--precision", "float16"), 1, "not in 'float16'"),
        (("--batch", -1), 1, "batch must be positive, not -1"),
        (("--own-text", -1), 1, "-1 blocks of own text"),
        (("--own-text", "much"), 2, "'much' is neither auto nor a whole number"),
        (("--blocks", 1), 1, "1 block of text is too little"),
        (("--length", 100), 1, "context is 64 tokens"),
    ],
)
def test_wrong_arguments(heal: Run, options: tuple[object, ...], code: int, words: str) -> None:
    result = heal(*options)
    assert (result.code, result.out) == (code, "")
    assert words in result.err


def test_adapters_without_peft(heal: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else find(name))
    result = heal("--lora", 4)
    assert result.code == 1
    assert "needs the package peft" in result.err


def test_a_teacher_is_needed(scarprune: Run, small: Path) -> None:
    result = scarprune("heal", small)
    assert result.code == 2
    assert "--teacher" in result.err
