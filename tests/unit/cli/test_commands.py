"""Each command from its arguments to its files and words."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

from scarprune.plan.plan import load_plan
from scarprune.profile.sums import load_profile

Run = Callable[..., Any]
SHORT = ("--length", 32, "--quiet")


def _json(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def test_profile_writes_the_sums_and_says_where(
    scarprune: Run, tiny: Path, text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "p.safetensors"
    result = scarprune("profile", tiny, "--text", text, "--out", out, "--blocks", 16, "--json", "-", *SHORT)
    assert (result.code, result.err) == (0, "")
    summary = json.loads(result.out)
    assert summary["format"] == "scarprune.profile-summary"
    assert summary["counts"] == {"targets": [16, 48, 432], "positions": [16, 48, 448], "blocks": 16}
    assert [site["name"] for site in summary["sites"]] == [f"model.layers.{i}.mlp.down_proj" for i in (0, 1)]
    assert load_profile(out).targets() == 16 * 31
    assert [path.name for path in tmp_path.iterdir()] == ["p.safetensors"]


def test_profile_without_a_text_recommends_one(scarprune: Run, tiny: Path, tmp_path: Path) -> None:
    result = scarprune(
        "profile", tiny, "--out", tmp_path / "p", "--blocks", 4, "--length", 32, "--no-redundancy"
    )
    assert result.code == 0
    assert "text like what the model will be used for is better (--text)" in result.err
    assert result.out.startswith("measured   124 predicted tokens in 4 blocks\n")


def test_plan_needs_no_model(scarprune: Run, profile: Path, tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    result = scarprune(
        "plan", profile, "--sparsity", 0.5, "--score", "wanda", "--multiple-of", 1, "--out", out
    )
    assert (result.code, result.err) == (0, "")
    assert [line.split(maxsplit=1) for line in result.out.splitlines()] == [
        ["score", "wanda"],
        ["sparsity", "50.0% of all channels (asked: 50.0%)"],
        ["width", "48 -> 24 channels in each of 2 sites"],
        [
            "would",
            "fit  GGUF Q4_0/Q8_0 at 32; tensor-core tiles at 64; GPTQ/AWQ groups at 128; GGUF K-quants at",
        ],
        ["256"],
        ["written", str(out)],
    ]
    assert load_plan(out).width == 24


def test_plan_protects_the_core_where_asked(scarprune: Run, profile: Path, tmp_path: Path) -> None:
    options = ["--sparsity", 0.9, "--score", "random", "--seed", 5, "--multiple-of", 1]
    for name, protect in (("free", []), ("kept", ["--protect", "core"])):
        assert scarprune("plan", profile, *options, *protect, "--out", tmp_path / name).code == 0
    free, kept = (_json(tmp_path / name)["sites"] for name in ("free", "kept"))
    assert any(not set(site["core"]) <= set(site["keep"]) for site in free)
    assert all(set(site["core"]) <= set(site["keep"]) for site in kept)


def test_eval_is_what_transformers_computes(scarprune: Run, tiny: Path, tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(3, 400, (3, 20))
    np.save(tmp_path / "ids.npy", ids)
    result = scarprune("eval", tiny, "--text", tmp_path / "ids.npy", "--json", "-", "--quiet")
    assert (result.code, result.err) == (0, "")
    found = json.loads(result.out)
    import torch

    model = AutoModelForCausalLM.from_pretrained(tiny)
    loss = model(input_ids=torch.tensor(ids), labels=torch.tensor(ids)).loss.item()
    assert found["format"] == "scarprune.eval"
    assert found["tokens"] == 3 * 19
    assert found["nats_per_token"] == pytest.approx(loss, rel=1e-5)
    assert found["perplexity"] == pytest.approx(np.exp(loss), rel=1e-4)
    assert found["standard_error"] > 0


def test_eval_takes_every_block_or_as_many_as_asked(scarprune: Run, tiny: Path, text: Path) -> None:
    arguments = ("eval", tiny, "--text", text, "--json", "-", *SHORT)
    every, few = (json.loads(scarprune(*arguments, *more).out) for more in ((), ("--blocks", 5)))
    assert few["tokens"] == 5 * 31
    assert every["tokens"] == every["text"]["blocks"] * 31 > few["tokens"]


def test_eval_under_a_plan_shows_the_excess(
    scarprune: Run, tiny: Path, text: Path, profile: Path, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.json"
    scarprune("plan", profile, "--sparsity", 0.5, "--out", plan)
    arguments = ("eval", tiny, "--text", text, *SHORT)
    result = scarprune(*arguments, "--plan", plan, "--json", tmp_path / "eval.json")
    assert (result.code, result.err) == (0, "")
    assert "under the plan" in result.out
    found, dense = _json(tmp_path / "eval.json"), json.loads(scarprune(*arguments, "--json", "-").out)
    assert found["dense"]["perplexity"] == dense["perplexity"]
    assert found["excess_nats"] == pytest.approx(np.log(found["perplexity"] / dense["perplexity"]))


def test_eval_under_a_plan_says_what_text_it_was_made_on(
    scarprune: Run, tiny: Path, text: Path, profile: Path, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.json"
    scarprune("plan", profile, "--sparsity", 0.5, "--out", plan)
    words = ("--text", text, "--length", 32, "--plan", plan, "--json", tmp_path / "eval.json")
    result = scarprune("eval", tiny, *words)
    shared = _json(tmp_path / "eval.json")["overlap"]
    # The profile read 16 of the blocks that are judged here.
    assert shared == pytest.approx(16 / _json(tmp_path / "eval.json")["text"]["blocks"], abs=0.01)
    assert f"{shared:.1%} of the evaluation text (13-grams of tokens)" in result.err


def test_long_work_on_a_cpu_is_said_first(
    scarprune: Run, tiny: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scarprune.pipeline.stages.expected_seconds", lambda *_, **__: 7200.0)
    result = scarprune("eval", tiny, "--text", text, "--length", 32, "--blocks", 4, "--device", "cpu")
    assert result.err == "Evaluating 4 blocks, 124 tokens: about 2.0 h on this CPU.\n"


def test_cut_slices_the_folder_as_the_plan_says(
    scarprune: Run, tiny: Path, profile: Path, tmp_path: Path
) -> None:
    plan, out = tmp_path / "plan.json", tmp_path / "small"
    scarprune("plan", profile, "--sparsity", 0.25, "--multiple-of", 1, "--out", plan)
    result = scarprune("cut", tiny, plan, out, "--json", tmp_path / "cut.json", "--quiet")
    assert (result.code, result.err) == (0, "")
    before, after = load_file(tiny / "model.safetensors"), load_file(out / "model.safetensors")
    for site in load_plan(plan).sites:
        assert np.array_equal(after[f"{site.name}.weight"], before[f"{site.name}.weight"][:, site.keep])
    report = _json(tmp_path / "cut.json")
    assert report["width"] == 36
    # Two layers, 12 channels each, three matrices, hidden size 32.
    assert report["parameters_before"] - report["parameters_after"] == 2 * 12 * 3 * 32
    assert report["bytes_before"] - report["bytes_after"] == 4 * 2 * 12 * 3 * 32


def test_families_and_scores_are_listed(scarprune: Run) -> None:
    families = scarprune("families").out
    assert all(word in families for word in ("llama", "gpt_neox", "gpt2", "bloom: no cut"))
    listed = json.loads(scarprune("families", "--json", "-").out)["families"]
    assert {family["name"]: family["cut"] for family in listed}["mpt"] is False
    scores = scarprune("scores").out
    assert "loss_proxy = scar_lp" in scores
    assert "1/2 * (1/N) * sum q_i^2" in scores
