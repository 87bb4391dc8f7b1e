"""A sweep of the tiny model: its numbers, how it goes on after a kill, and what it refuses."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scarprune as sp
from scarprune.errors import NumericsError
from scarprune.pipeline.sweep.judge import Judge

Run = Callable[..., Any]
SHAPE = ("--blocks", 16, "--length", 32, "--multiple-of", 1, "--quiet")
GRID = ("--scores", "loss_proxy,random", "--sparsities", 0.5, "--compensate", "none,ls", "--seeds", "0,1")


@pytest.fixture(scope="module")
def judging(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text for some 20 blocks of 32 tokens, of other words than what is measured on."""
    words = np.random.default_rng(1).integers(0, 10_000, 200)
    path = tmp_path_factory.mktemp("judging") / "land.txt"
    path.write_text(" ".join(f"land{word}" for word in words))
    return path


@pytest.fixture(scope="module")
def words(tiny: Path, text: Path, judging: Path) -> tuple[Any, ...]:
    """The command line, but for --out."""
    return ("sweep", tiny, "--text", text, "--eval", judging, *GRID, *SHAPE)


@pytest.fixture(scope="module")
def swept(words: tuple[Any, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole sweep of eight runs."""
    from scarprune.cli.main import run

    out = tmp_path_factory.mktemp("swept") / "sweep"
    assert run([str(word) for word in (*words, "--out", out)]) == 0
    return out


def _lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "runs.jsonl").read_text().splitlines()]


def _timeless(out: Path) -> list[dict[str, Any]]:
    """The lines of a sweep without what another clock changes."""
    lines = _lines(out)
    for line in lines:
        del line["seconds"], line["provenance"]["date"]
        if line["compensation"] is not None:
            del line["compensation"]["seconds"]
    return lines


def _line(out: Path, **wanted: Any) -> dict[str, Any]:
    (found,) = [line for line in _lines(out) if wanted.items() <= line.items()]
    return found


def test_a_line_says_all_that_a_number_depends_on(swept: Path, tiny: Path, text: Path) -> None:
    lines = _lines(swept)
    assert [(one["seed"], one["compensate"], one["score"]) for one in lines] == [
        (seed, compensate, score)
        for seed in (0, 1)
        for compensate in ("none", "ls")
        for score in ("loss_proxy", "random")
    ]
    profiles = {one["profile"] for one in lines}
    assert len(profiles) == len({one["calibration"]["fingerprint"] for one in lines}) == 2  # one a seed
    assert len({one["evaluation"]["fingerprint"] for one in lines}) == 1
    one = lines[0]
    assert one["settings"]["model"] == one["provenance"]["fingerprint"]
    assert one["provenance"]["versions"]["torch"]
    assert (one["provenance"]["device"], one["provenance"]["dtype"]) == ("cpu", "float32")
    # Two layers, 24 channels each, three matrices, hidden size 32: for masks as for cut models.
    assert {line["parameters_before"] - line["parameters_after"] for line in lines} == {2 * 24 * 3 * 32}


def test_numbers_are_those_of_prune(
    scarprune: Run, swept: Path, tiny: Path, text: Path, judging: Path, tmp_path: Path
) -> None:
    options = ("--sparsity", 0.5, "--score", "loss_proxy", "--compensate", "ls", "--seed", 1)
    places = ("--text", text, "--eval", judging, "--json", tmp_path / "found.json")
    assert scarprune("prune", tiny, tmp_path / "small", *options, *places, *SHAPE).code == 0
    single = json.loads((tmp_path / "found.json").read_text())
    line = _line(swept, score="loss_proxy", compensate="ls", seed=1)
    assert line["excess_nats"] == pytest.approx(single["excess_nats"], rel=1e-6)
    assert line["excess_standard_error"] == pytest.approx(single["excess_standard_error"], rel=1e-5)
    assert line["compensation"]["kept"] == single["compensation"]["kept"]
    for key in ("parameters_before", "parameters_after", "achieved_sparsity", "overlap"):
        assert line[key] == single[key]


def test_masked_runs_are_those_of_the_stages_and_leave_the_model_dense(
    swept: Path, tiny: Path, text: Path, judging: Path
) -> None:
    model, tokenizer = sp.load_model(str(tiny))
    judged = sp.read_blocks(judging, tokenizer, None, 32)
    dense = sp.perplexity(model, judged)
    profile = sp.profile_model(model, sp.read_blocks(text, tokenizer, 16, 32, seed=1), seed=1)
    sp.prune_model(model, sp.make_plan(profile, "random", 0.5, multiple_of=1, seed=1))
    pruned = sp.perplexity(model, judged)
    line = _line(swept, score="random", compensate="none", seed=1)
    assert line["dense"]["nats_per_token"] == pytest.approx(dense.nats_per_token, rel=1e-9)
    assert line["excess_nats"] == pytest.approx(pruned.nats_per_token - dense.nats_per_token, abs=1e-6)
    assert len({one["dense"]["nats_per_token"] for one in _lines(swept)}) == 1


def test_the_result_is_of_the_runs(swept: Path) -> None:
    found = json.loads((swept / "sweep.json").read_text())
    assert (found["format"], found["seeds"], len(found["rows"])) == ("scarprune.sweep", [0, 1], 4)
    for row in found["rows"]:
        same = {key: row[key] for key in ("score", "compensate", "protect", "sparsity")}
        by_seed = [line["excess_nats"] for line in _lines(swept) if same.items() <= line.items()]
        base = [_line(swept, score="loss_proxy", compensate="none", seed=seed) for seed in (0, 1)]
        paired = [a - b["excess_nats"] for a, b in zip(by_seed, base, strict=True)]
        assert row["excess_nats"]["value"] == pytest.approx(np.mean(by_seed))
        assert row["difference"]["value"] == pytest.approx(np.mean(paired), abs=1e-12)
    assert (swept / "figures" / "sweep.svg").read_text().startswith("<svg")


def test_a_kill_inside_a_run_changes_nothing(
    scarprune: Run, swept: Path, words: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, made = tmp_path / "killed", []
    judge = Judge.__call__

    def killed(self: Judge, runs: Any, *rest: Any) -> list[dict[str, Any]]:
        if len(made) == 4:  # two masked at once and two cut of the first seed, two masked of the second
            raise KeyboardInterrupt
        made.append(runs)
        return judge(self, runs, *rest)

    monkeypatch.setattr(Judge, "__call__", killed)
    result = scarprune(*words, "--out", out)
    assert result.code == 130
    assert "--resume goes on" in result.err
    assert (len(_lines(out)), (out / "sweep.json").exists()) == (6, False)
    made[:] = [None]
    assert scarprune(*words, "--out", out, "--resume").code == 0
    assert len(made) == 3  # the two that were left
    assert _timeless(out) == _timeless(swept)


def test_a_torn_line_and_a_lost_profile_are_made_again(
    scarprune: Run, swept: Path, words: tuple[Any, ...], tmp_path: Path
) -> None:
    out = tmp_path / "torn"
    shutil.copytree(swept, out)
    shutil.rmtree(out / "profiles" / "seed-1")
    lines = (swept / "runs.jsonl").read_bytes().splitlines(keepends=True)
    (out / "runs.jsonl").write_bytes(b"".join(lines[:4]) + lines[4][:100])
    assert scarprune(*words, "--out", out, "--resume").code == 0
    assert _timeless(out) == _timeless(swept)
    ours, theirs = (json.loads((folder / "sweep.json").read_text())["rows"] for folder in (out, swept))
    assert [row["excess_nats"] for row in ours] == [row["excess_nats"] for row in theirs]


def test_a_sweep_may_grow_by_a_score_that_needs_more(
    scarprune: Run, words: tuple[Any, ...], tmp_path: Path
) -> None:
    few = (
        *words[: -len(SHAPE)],
        *SHAPE[:-1],
        "--compensate",
        "none",
        "--seeds",
        0,
        "--out",
        tmp_path / "grown",
    )
    assert scarprune(*few, "--scores", "wanda").code == 0
    before = _lines(tmp_path / "grown")
    result = scarprune(*few, "--scores", "wanda,scar_prot", "--resume")
    assert result.code == 0, result.err
    assert "profile.safetensors does not hold all that is needed now" in result.err
    after = _lines(tmp_path / "grown")
    assert after[0] == before[0]
    assert [line["score"] for line in after] == ["wanda", "scar_prot"]


def test_how_long_to_train_matters_to_runs_that_train_alone(
    scarprune: Run, words: tuple[Any, ...], tmp_path: Path
) -> None:
    few = (*words, "--scores", "wanda", "--seeds", 0, "--out", tmp_path / "grown")
    assert scarprune(*few, "--compensate", "none").code == 0
    fitted = (*few, "--compensate", "none,refit", "--own-text", 2, "--resume")
    result = scarprune(*fitted, "--compensate-steps", 1)
    assert result.code == 0, result.err
    assert [line["compensate"] for line in _lines(tmp_path / "grown")] == ["none", "refit"]
    result = scarprune(*fitted, "--compensate-steps", 2)
    assert result.code == 1
    assert "compensate steps is 1, not 2" in result.err


def test_a_sweep_may_grow_and_keeps_what_it_has(
    scarprune: Run, swept: Path, words: tuple[Any, ...], tmp_path: Path
) -> None:
    out = tmp_path / "grown"
    shutil.copytree(swept, out)
    more = (
        "--scores",
        "loss_proxy,activation_power",
        "--compensate",
        "none",
        "--reference",
        "activation_power",
    )
    result = scarprune(*words, *more, "--out", out, "--resume")
    assert result.code == 0
    assert _lines(out)[:8] == _lines(swept)
    assert [line["score"] for line in _lines(out)[8:]] == ["activation_power"] * 2
    assert "reference" in result.out


def test_what_is_not_finite_is_null_with_its_reason(
    scarprune: Run, words: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any, **named: Any) -> None:
        raise NumericsError("The Gram matrix of layers.0 is not finite.")

    monkeypatch.setattr("scarprune.pipeline.sweep.judge.prune_model", fail)
    result = scarprune(*words, "--scores", "random", "--seeds", 0, "--out", tmp_path / "odd")
    assert result.code == 0
    assert "not finite" in result.out
    line = _line(tmp_path / "odd", compensate="ls")
    assert (line["excess_nats"], line["pruned"]) == (None, None)
    assert line["missing"] == {"excess_nats": "The Gram matrix of layers.0 is not finite."}


def test_a_sweep_that_is_there_is_not_touched_unasked(
    scarprune: Run, swept: Path, words: tuple[Any, ...]
) -> None:
    before = (swept / "runs.jsonl").read_bytes()
    result = scarprune(*words, "--out", swept)
    assert result.code == 1
    assert "already there. Pass --resume" in result.err
    assert (swept / "runs.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--multiple-of", 2], "its multiple of is 1, not 2"),
        (["--eval-blocks", 3], "its evaluation text is"),
        (["--blocks", 8], "its text is"),
        (["--compensate-steps", 5], "its compensate steps is None, not 5"),
        (["--dtype", "bfloat16"], "its dtype is float32, not bfloat16"),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, list) else None,
)
def test_a_folder_of_other_options_is_refused(
    scarprune: Run, swept: Path, words: tuple[Any, ...], options: list[Any], said: str
) -> None:
    before = (swept / "runs.jsonl").read_bytes()
    result = scarprune(*words, *options, "--out", swept, "--resume")
    assert result.code == 1
    assert f"belongs to another sweep: {said}" in result.err
    assert (swept / "runs.jsonl").read_bytes() == before


def test_a_folder_of_another_model_is_refused(
    scarprune: Run, swept: Path, words: tuple[Any, ...], tiny: Path, tmp_path: Path
) -> None:
    from support.tiny_models import tiny_model
    from support.tokenizers import byte_level

    tiny_model("llama", seed=1, vocab_size=400).save_pretrained(tmp_path / "other")
    byte_level().save_pretrained(tmp_path / "other")
    result = scarprune("sweep", tmp_path / "other", *words[2:], "--out", swept, "--resume")
    assert result.code == 1
    assert "belongs to another sweep: its model is" in result.err


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--sparsities", "0.5,1.0"], 1, "Sparsity must be in [0, 1), not 1.0."),
        (["--sparsities", "0.5,half"], 2, "'0.5,half' is no list of numbers joined by commas"),
        (["--seeds", "0,1.5"], 2, "'0,1.5' is no list of whole numbers"),
        (["--scores", "lossproxy"], 1, "no score called 'lossproxy'"),
        (["--compensate", "none,lsq"], 1, "no compensation 'lsq'"),
        (["--reference", "wanda"], 1, "The reference 'wanda' is not among what is compared."),
        (["--compensate-steps", 0], 1, "cannot be bounded by 0 steps"),
        (["--blocks", 1], 1, "at least 2 are needed"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else None,
)
def test_wrong_options_leave_nothing_behind(
    scarprune: Run, words: tuple[Any, ...], tmp_path: Path, options: list[Any], code: int, said: str
) -> None:
    result = scarprune(*words, *options, "--out", tmp_path / "none")
    assert (result.code, said in result.err, result.out) == (code, True, "")
    assert not list(tmp_path.iterdir())


def test_another_text_needs_one_to_judge_on(scarprune: Run, tiny: Path, text: Path, tmp_path: Path) -> None:
    result = scarprune("sweep", tiny, "--text", text, "--out", tmp_path / "none", *GRID)
    assert (result.code, "Name a text with --eval" in result.err) == (1, True)


def test_a_dry_run_lists_the_runs_and_reads_nothing(scarprune: Run, tmp_path: Path) -> None:
    result = scarprune("sweep", "nowhere", "--out", tmp_path / "none", *GRID, "--dry-run")
    assert result.code == 0
    assert "loss_proxy + ls at 50%, seed 1" in result.out
    assert result.out.endswith("\n8 runs.\n")
    assert not list(tmp_path.iterdir())
