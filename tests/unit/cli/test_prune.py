"""The main job: what it writes, how it goes on after Ctrl-C, and what it refuses."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

from scarprune.errors import NumericsError
from scarprune.pipeline.inputs import Compensating, Reading
from scarprune.pipeline.prune import check_compensating
from scarprune.profile import passes
from scarprune.profile.sums import load_profile
from scarprune.text.draw import spread
from support.judging import every_step_is_better
from support.tokenizers import byte_level

Run = Callable[..., Any]
QUICK = ("--blocks", 16, "--length", 32, "--multiple-of", 1, "--quiet")


@pytest.fixture(scope="module")
def pruned(tiny: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole prune of the tiny model at 50%: the folder of the checkpoint, its JSON beside it."""
    from scarprune.cli.main import run

    out = tmp_path_factory.mktemp("pruned") / "small"
    words = ("prune", tiny, out, "--sparsity", 0.5, "--text", text, "--json", f"{out}.json", *QUICK)
    assert run([str(word) for word in words]) == 0
    return out


def _result(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(f"{out}.json").read_text())
    return found


def test_prune_writes_a_smaller_checkpoint_and_nothing_else(pruned: Path) -> None:
    assert sorted(path.name for path in pruned.parent.iterdir()) == ["small", "small.json"]
    assert AutoModelForCausalLM.from_pretrained(pruned).config.intermediate_size == 24
    assert (pruned / "tokenizer.json").is_file()


def test_prune_says_what_it_cost(pruned: Path) -> None:
    result = _result(pruned)
    dense, small = result["dense"], result["pruned"]
    assert result["format"] == "scarprune.prune"
    assert result["excess_nats"] == pytest.approx(np.log(small["perplexity"] / dense["perplexity"]))
    assert result["excess_standard_error"] > 0
    # Two layers, 24 channels each, three matrices, hidden size 32, float32.
    assert result["parameters_before"] - result["parameters_after"] == 2 * 24 * 3 * 32
    assert result["bytes_before"] - result["bytes_after"] == 4 * 2 * 24 * 3 * 32
    assert result["verified"] is True
    assert 0 <= result["max_logit_difference"] < 1e-4
    assert dense["tokens"] == small["tokens"] == result["evaluation"]["blocks"] * 31
    assert result["overlap"] == 0.0


def test_the_numbers_are_those_of_eval_on_the_saved_checkpoint(
    scarprune: Run, pruned: Path, tiny: Path, text: Path, tmp_path: Path
) -> None:
    reading, tokenizer = Reading(length=32), byte_level()
    measured = {row.tobytes() for row in reading.blocks(str(text), tokenizer, 16).ids}
    rest = [row for row in reading.blocks(str(text), tokenizer, None).ids if row.tobytes() not in measured]
    judged = np.stack(rest)[spread(len(rest), 64, 0)]
    np.save(tmp_path / "rest.npy", judged)
    for folder, key in ((tiny, "dense"), (pruned, "pruned")):
        found = json.loads(scarprune("eval", folder, "--text", tmp_path / "rest.npy", "--json", "-").out)
        assert found["tokens"] == 64 * 31
        assert found["perplexity"] == pytest.approx(_result(pruned)[key]["perplexity"], rel=1e-6)


def test_the_card_tells_the_perplexities(pruned: Path) -> None:
    card, result = (pruned / "README.md").read_text(), _result(pruned)
    assert "# small\n" in card
    assert f"{result['dense']['perplexity']:.3f}" in card
    assert f"{result['pruned']['perplexity']:.3f}" in card


def test_sparsity_0_changes_no_bit(scarprune: Run, tiny: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "same"
    words = ("--text", text, "--score", "activation_power", "--json", "-", *QUICK)
    result = scarprune("prune", tiny, out, "--sparsity", 0, *words)
    assert result.code == 0
    before, after = load_file(tiny / "model.safetensors"), load_file(out / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    found = json.loads(result.out)
    assert (found["excess_nats"], found["excess_standard_error"]) == (0.0, 0.0)


def test_prune_makes_the_extra_pass_its_score_needs(
    scarprune: Run, tiny: Path, text: Path, tmp_path: Path
) -> None:
    words = ("--sparsity", 0.5, "--text", text, *QUICK)
    result = scarprune("prune", tiny, tmp_path / "small", *words, "--score", "obs", "--json", "-")
    assert (result.code, json.loads(result.out)["score"]) == (0, "obs")
    profile = tmp_path / "p.safetensors"
    assert (
        scarprune("profile", tiny, "--out", profile, "--text", text, "--extra", "entropy", *QUICK[:4]).code
        == 0
    )
    assert load_profile(profile).extras == ("entropy",)
    result = scarprune("prune", tiny, tmp_path / "other", *words, "--score", "obs", "--profile", profile)
    assert result.code == 1
    assert "--extra hessian" in result.err


def _interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C right after the state was kept for the first time: after one batch."""
    monkeypatch.setattr("scarprune.profile.state._SECONDS_BETWEEN", -1.0)
    keep = passes.Run._keep

    def interrupted(self: Any, number: int, observer: Any) -> None:
        keep(self, number, observer)
        raise KeyboardInterrupt

    monkeypatch.setattr(passes.Run, "_keep", interrupted)


def test_an_interrupted_profile_goes_on_to_the_same_bits(
    scarprune: Run, tiny: Path, text: Path, tmp_path: Path
) -> None:
    out, whole = tmp_path / "p.safetensors", tmp_path / "whole.safetensors"
    words = ("--text", text, "--blocks", 12, "--length", 32, "--batch", 2, "--quiet")
    assert scarprune("profile", tiny, "--out", whole, *words).code == 0
    with pytest.MonkeyPatch.context() as patch:
        _interrupt(patch)
        result = scarprune("profile", tiny, "--out", out, *words)
    state = tmp_path / "p.safetensors.partial"
    assert (result.code, result.out) == (130, "")
    go_on = "The same command with --resume goes on from there."
    assert result.err == f"\nInterrupted. What was measured so far is in {state}. {go_on}\n"
    assert not out.exists()
    assert scarprune("profile", tiny, "--out", out, "--resume", *words).code == 0
    assert not state.exists()
    found, expected = load_profile(out).tensors, load_profile(whole).tensors
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[key], expected[key]) for key in expected)


def test_an_interrupted_prune_leaves_no_output_and_goes_on(
    scarprune: Run, tiny: Path, text: Path, pruned: Path, tmp_path: Path
) -> None:
    out = tmp_path / "small"
    words = ("prune", tiny, out, "--sparsity", 0.5, "--text", text, "--batch", 8, *QUICK)
    with pytest.MonkeyPatch.context() as patch:
        _interrupt(patch)
        result = scarprune(*words)
    assert (result.code, result.out) == (130, "")
    assert f"What was measured so far is in {out}.partial." in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["small.partial"]
    assert scarprune(*words, "--resume").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["small"]
    before, after = load_file(pruned / "model.safetensors"), load_file(out / "model.safetensors")
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_failed_verification_keeps_the_profile_and_no_checkpoint(
    scarprune: Run, tiny: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def differs(*_: Any, **__: Any) -> float:
        raise NumericsError("The reloaded model differs.")

    monkeypatch.setattr("scarprune.cut.verify.verify_reload", differs)
    words = ("prune", tiny, tmp_path / "small", "--sparsity", 0.5, "--text", text, *QUICK)
    result = scarprune(*words)
    assert (result.code, result.out, result.err) == (1, "", "Error: The reloaded model differs.\n")
    kept = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    assert kept == ["small.partial/profile.safetensors"]


def test_a_compensated_prune_is_verified_and_told(
    scarprune: Run, tiny: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every_step_is_better(monkeypatch)
    out = tmp_path / "small"
    how = ("--compensate", "refit", "--compensate-steps", 5, "--own-text", 3, "--json", f"{out}.json")
    shown = scarprune("prune", tiny, out, "--sparsity", 0.5, "--text", text, *how, *QUICK)
    assert shown.code == 0
    assert "compensation   refit in " in shown.out
    assert "of the compensated model's in memory" in " ".join(shown.out.split())
    result = _result(out)
    found = result["compensation"]
    assert (result["compensate"], found["name"], found["kept"]) == ("refit", "refit", "refit")
    assert result["own_text"] == 3
    assert "own text       3 blocks more" in shown.out
    assert [site["name"] for site in found["sites"]] == [f"model.layers.{i}.mlp.down_proj" for i in (0, 1)]
    assert result["verified"] is True
    assert 0 <= result["max_logit_difference"] < 1e-4
    card = (out / "README.md").read_text()
    assert "what stays of each layer was trained to make up for them" in card
    assert "\nscarprune cut " not in card
    # Nothing but the layers is other than in the source.
    before, after = load_file(tiny / "model.safetensors"), load_file(out / "model.safetensors")
    assert all(np.array_equal(before[name], after[name]) for name in before if ".layers." not in name)


def test_an_interrupted_refit_leaves_the_profile_alone(
    scarprune: Run, tiny: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("scarprune.cut.compensate.kinds.refit.train", interrupted)
    words = ("--text", text, "--compensate", "refit", *QUICK)
    result = scarprune("prune", tiny, tmp_path / "small", "--sparsity", 0.5, *words)
    assert (result.code, result.out) == (130, "")
    kept = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    assert kept == ["small.partial/profile.safetensors"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--compensate", "glue"), "There is no compensation 'glue'. There is: none, bias, ls, refit."),
        (("--compensate", "bias"), "Down projections of LlamaForCausalLM have no bias in stock transformers"),
        (("--compensate", "refit", "--compensate-steps", 0), "cannot be bounded by 0 steps"),
        (("--compensate", "refit", "--compensate-seconds", -1), "cannot be bounded by -1.0 seconds"),
    ],
)
def test_a_compensation_that_cannot_be_is_refused_before_the_work(
    scarprune: Run, tiny: Path, text: Path, tmp_path: Path, words: tuple[object, ...], message: str
) -> None:
    result = scarprune("prune", tiny, tmp_path / "small", "--sparsity", 0.5, "--text", text, *QUICK, *words)
    assert (result.code, result.out) == (1, "")
    assert message in result.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("asked", "others", "idle"),
    [
        (Compensating("none", 5, None, 8), (), "--compensate-steps and --own-text, as --compensate is none"),
        (Compensating("ls", None, 2.0, 8), (), "--compensate-seconds, as --compensate is ls"),
        (Compensating("none", 5, None, 8), ("none", "ls"), "--compensate-steps, as --compensate is none,ls"),
        (Compensating("none", 5, None, 8), ("none", "refit"), None),
        (Compensating("refit", 5, 2.0, 8), (), None),
        (Compensating("none", None, None, 0), (), None),
    ],
)
def test_what_changes_nothing_is_said(
    capsys: pytest.CaptureFixture[str], asked: Compensating, others: tuple[str, ...], idle: str | None
) -> None:
    check_compensating(asked, *others)
    assert capsys.readouterr().err == ("" if idle is None else f"Nothing is changed by {idle}.\n")


def test_ctrl_c_is_130_and_leaves_nothing(tiny: Path, text: Path, tmp_path: Path) -> None:
    words = ("prune", tiny, "small", "--sparsity", 0.5, "--text", text, "--blocks", 64, "--length", 32)
    command = [sys.executable, "-m", "scarprune", *map(str, words), "--batch", "1"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell starts in the background ignores Ctrl-C, and so would all that it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stderr is not None
        while "Profiling" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert err.endswith("\nInterrupted. Nothing was written; run the same command to begin again.\n")
    assert list(tmp_path.iterdir()) == []
