"""``scarprune reproduce`` as a user types it."""

import json

SMALL = ["--length", 24, "--blocks", 10, "--eval-blocks", 3, "--paper-texts", 8, "--paper-blocks", 2]


def test_profile_and_paper_of_a_folder(scarprune, tiny, text, tmp_path):
    out = tmp_path / "out"
    told = [tiny, "--text", text, "--eval", text, "--out", out, "--sparsities", "0.25,0.5", *SMALL]
    result = scarprune("reproduce", *told, "--steps", "profile,paper,paper-pruning", "--no-sparsegpt")
    assert result.code == 0, result.err
    assert "paper's protocol here" in result.out
    assert "paper_wanda at 50%, perplexity" in result.out
    assert "The step" not in result.err
    document = json.loads((out / "reproduction.json").read_text())
    assert document["missing"]["paper: paper_sparsegpt"] == "left out as asked"
    assert {row["sparsity"] for row in document["pruning"]} == {0.25, 0.5}


def test_dry_run_of_a_model_that_is_here_and_of_one_that_is_not(scarprune, tiny, text, tmp_path):
    result = scarprune("reproduce", tiny, "--text", text, "--eval", text, *SMALL, "--dry-run", "--json", "-")
    assert result.code == 0, result.err
    expected = json.loads(result.out)
    assert set(expected["seconds"]) == {"profile", "findings", "probes", "pruning", "paper", "paper-pruning"}
    assert expected["one_block_bytes"] > expected["weights_bytes"] > 0

    away = scarprune("reproduce", "llama-3.1-70b", "--dry-run", "--json", "-", "--quiet")
    assert away.code == 0, away.err
    expected = json.loads(away.out)
    assert (expected["seconds"], expected["weights_bytes"]) == (None, 2 * 70_553_706_496)
    # One pass each of 24 scores and controls over 64 blocks of 512 at three sparsities, and the dense one.
    assert (
        expected["operations"]["profile"] == 4 * 70_553_706_496 * 6.0 * 128 * 512
    )  # 2 passes, 0.5 for labels, 3.5 extra
    assert "not on this machine" in expected["missing"]["seconds"]
    shown = scarprune("reproduce", "llama-3.1-70b", "--dry-run", "--quiet")
    assert "unknown" in shown.out
    assert not list(tmp_path.iterdir())


def test_a_preset_that_is_misspelt(scarprune):
    result = scarprune("reproduce", "lama-3.1-8b", "--dry-run")
    assert (result.code, result.out) == (1, "")
    assert "Did you mean llama-3.1-8b?" in result.err


def test_numbers_that_are_none(scarprune):
    result = scarprune("reproduce", "demo", "--sparsities", "0.5,half")
    assert result.code == 2
    assert "no list of numbers" in result.err
