"""Bad input gets one clear sentence, exit code 1, and leaves nothing behind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

Run = Callable[..., Any]
QUICK = ("--blocks", 16, "--length", 32, "--quiet")


def _refused(result: Any, folder: Path, *words: str) -> None:
    """One line on stderr that holds ``words``, nothing on stdout, nothing in ``folder``."""
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("Error: ")
    assert result.err.count("\n") == 1
    for word in words:
        assert word in result.err
    assert not list(folder.iterdir())


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """Where an output would go."""
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sparsity", 1], ["Sparsity must be in [0, 1), not 1.0."]),
        (["--sparsity", -0.1], ["Sparsity must be in [0, 1), not -0.1."]),
        (["--sparsity", "nan"], ["Sparsity must be in [0, 1), not nan."]),
        (["--sparsity", 0.5, "--score", "lossproxy"], ["no score called 'lossproxy'", "loss_proxy"]),
        (["--sparsity", 0.5, "--protect", "cores"], ["protect must be", "'cores'"]),
        (["--sparsity", 0.5, "--allocation", "globl"], ["allocation must be one of", "'globl'"]),
        (["--sparsity", 0.5, "--multiple-of", 0], ["multiple_of must be", "0"]),
        (["--sparsity", 0.5, "--dtype", "float8"], ["'float8' is not a dtype"]),
        (["--sparsity", 0.5, "--device", "tpu9"], ["tpu9"]),
        (["--sparsity", 0.5, "--protocol", "pakced"], ["'pakced' is no protocol", "packed"]),
        (["--sparsity", 0.5, "--length", 65], ["65", "context is 64"]),
        (["--sparsity", 0.5, "--length", 1], ["1"]),
        (["--sparsity", 0.5, "--blocks", 10_000], ["10000 were asked for"]),
        (["--sparsity", 0.5, "--blocks", 0], ["0 blocks"]),
        (["--sparsity", 0.5, "--batch", 0], ["batch must be", "0"]),
        (["--sparsity", 0.5, "--profile", "nowhere"], ["no file nowhere"]),
        (["--sparsity", 0.5, "--eval", "nowhere.txt"], ["no text file nowhere.txt"]),
        (["--sparsity", 0.5, "--save-dtype", "float8"], ["'float8' is not a dtype"]),
    ],
    ids=lambda value: " ".join(map(str, value[-2:])) if isinstance(value, list) else None,
)
def test_options_of_prune(
    scarprune: Run, tiny: Path, text: Path, empty: Path, options: list[Any], words: list[str]
) -> None:
    _refused(scarprune("prune", tiny, empty / "out", "--text", text, *QUICK, *options), empty, *words)


def test_more_than_a_pool_may_remove(scarprune: Run, tiny: Path, text: Path, empty: Path) -> None:
    words = ("prune", tiny, empty / "out", "--text", text, "--sparsity", 0.6, *QUICK)
    result = scarprune(*words, "--allocation", "global", "--cap", 0.5, "--pad")
    _refused(result, empty, "with cap 0.5 at most 48 can go", "Ask for a lower sparsity")
    _refused(scarprune(*words, "--allocation", "global"), empty, "cannot be saved as they are", "--pad")


def test_an_output_inside_the_source(scarprune: Run, tiny: Path, text: Path, tmp_path: Path) -> None:
    source = _copy(tiny, tmp_path / "source")
    before = sorted(source.iterdir())
    result = scarprune("prune", source, source / "out", "--sparsity", 0.5, "--text", text, *QUICK)
    assert result.code == 1
    assert "lies inside the source" in result.err
    assert sorted(source.iterdir()) == before


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "There is no text file"), ("", "is empty"), ("too short", "blocks of 32 tokens")],
)
def test_texts(
    scarprune: Run, tiny: Path, empty: Path, tmp_path: Path, content: str | None, sentence: str
) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_text(content)
    words = ("--text", path, *QUICK)
    _refused(scarprune("profile", tiny, "--out", empty / "p", *words), empty, sentence)
    _refused(scarprune("prune", tiny, empty / "out", "--sparsity", 0.5, *words), empty, sentence)
    _refused(scarprune("eval", tiny, *words), empty, sentence)


def test_token_ids_outside_the_vocabulary(scarprune: Run, tiny: Path, empty: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.full((4, 16), 400))
    words = ("--text", tmp_path / "ids.npy", "--quiet")
    for command in (("profile", tiny, "--out", empty / "p"), ("eval", tiny)):
        _refused(scarprune(*command, *words), empty, "token id 400", "400 ids")


def test_folders_that_are_no_model(scarprune: Run, text: Path, empty: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    words = ("--sparsity", 0.5, "--text", text, *QUICK)
    _refused(
        scarprune("prune", tmp_path / "folder", empty / "out", *words),
        empty,
        "no model folder",
        "config.json",
    )
    _refused(
        scarprune("prune", tmp_path / "missing", empty / "out", *words), empty, f"{tmp_path / 'missing'}"
    )
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    _refused(scarprune("prune", tmp_path / "a.gguf", empty / "out", *words), empty, "a.gguf")


def test_weights_that_are_not_finite_are_named(
    scarprune: Run, tiny: Path, text: Path, empty: Path, tmp_path: Path
) -> None:
    broken = _copy(tiny, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] = np.inf
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    result = scarprune("prune", broken, empty / "out", "--sparsity", 0.5, "--text", text, *QUICK)
    _refused(result, empty, "model.layers.1.mlp.up_proj.weight")


def test_truncated_weights(scarprune: Run, tiny: Path, text: Path, empty: Path, tmp_path: Path) -> None:
    broken = _copy(tiny, tmp_path / "broken")
    data = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(data[:-100])
    result = scarprune("prune", broken, empty / "out", "--sparsity", 0.5, "--text", text, *QUICK)
    _refused(result, empty, "model.safetensors is truncated")


def test_a_profile_or_plan_of_other_weights(
    scarprune: Run, tiny: Path, text: Path, profile: Path, empty: Path, tmp_path: Path
) -> None:
    other = _copy(tiny, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    save_file(
        {name: 2 * array for name, array in weights.items()}, other / "model.safetensors", {"format": "pt"}
    )
    plan = tmp_path / "plan.json"
    scarprune("plan", profile, "--sparsity", 0.5, "--out", plan)
    words = ("--sparsity", 0.5, "--profile", profile, "--eval", text, *QUICK)
    _refused(scarprune("prune", other, empty / "out", *words), empty, "other weights", "--profile")
    _refused(scarprune("cut", other, plan, empty / "out", "--quiet"), empty, "made for other weights")
    _refused(
        scarprune("eval", other, "--plan", plan, "--text", text, *QUICK), empty, "made for other weights"
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"version": 99}, "has format version 99"),
        ({"format": "scarprune.eval"}, "its format is 'scarprune.eval'"),
        ({"sites": []}, "no sites"),
    ],
)
def test_plans(
    scarprune: Run,
    tiny: Path,
    profile: Path,
    empty: Path,
    tmp_path: Path,
    change: dict[str, Any],
    sentence: str,
) -> None:
    plan = tmp_path / "plan.json"
    scarprune("plan", profile, "--sparsity", 0.5, "--out", plan)
    plan.write_text(json.dumps({**json.loads(plan.read_text()), **change}))
    _refused(scarprune("cut", tiny, plan, empty / "out", "--quiet"), empty, sentence)


def test_existing_outputs_are_left_alone(
    scarprune: Run, tiny: Path, text: Path, profile: Path, tmp_path: Path
) -> None:
    there, plan = tmp_path / "there", tmp_path / "plan.json"
    there.write_text("mine")
    scarprune("plan", profile, "--sparsity", 0.5, "--out", plan)
    for words in (
        ("profile", tiny, "--out", there),
        ("plan", profile, "--sparsity", 0.5, "--out", there),
        ("cut", tiny, plan, there),
        ("prune", tiny, there, "--sparsity", 0.5),
        ("eval", tiny, "--text", text, "--json", there),
    ):
        result = scarprune(*words)
        assert (result.code, result.out) == (1, "")
        assert result.err == f"Error: {there} is already there. Pass --overwrite to replace it.\n"
    assert there.read_text() == "mine"


def test_a_foreign_folder_is_not_replaced_by_a_demo(scarprune: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    result = scarprune("demo", "--out", tmp_path)
    assert (result.code, result.out) == (1, "")
    assert result.err == (
        f"Error: {tmp_path} is there and is not an earlier demo's. Choose another folder with --out.\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_unknown_demo(scarprune: Run, empty: Path) -> None:
    _refused(scarprune("demo", "smollm3", "--out", empty / "x"), empty, "no demo called 'smollm3'", "smollm2")


def _copy(source: Path, target: Path) -> Path:
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target
