"""``scarprune bench --dry-run``: from a config to a table and JSON, without weights."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Run = Callable[..., Any]


def bare(model: Path, folder: Path) -> Path:
    """A folder with the config of ``model`` alone."""
    folder.mkdir()
    shutil.copy(model / "config.json", folder)
    return folder


def test_a_config_is_enough(
    scarprune: Run, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    folder = bare(tiny, tmp_path / "bare")
    out = tmp_path / "cost.json"
    result = scarprune("bench", folder, "--dry-run", "--blocks", 8, "--length", 16, "--json", out)
    assert (result.code, "H100" in result.err) == (0, True)
    for stage in ("profile, pass 1", "profile, pass 2", "perplexity", "cut", "ls", "refit", "heal, a step"):
        assert stage in result.out
    found = json.loads(out.read_text())
    assert (found["format"], found["dry_run"]) == ("scarprune.bench", True)
    first, *_ = found["stages"]
    # Two layers of hidden 32, width 48, heads of 32 + 16 + 16 + 32, vocabulary 400; 4 query heads of 8.
    layer, head = 2 * (3 * 32 * 48 + 32 * (32 + 16 + 16 + 32)), 2 * 32 * 400
    below = 2 * (2 * 32 * 48 + 32 * (32 + 16 + 16 + 32))
    pairs = 16 * 17 / 2
    forward = 16 * (2 * layer + head) + 2 * 4 * 32 * pairs
    back = 16 * (2 * layer + head - below) + 2 * 4 * 32 * pairs
    assert first["work"]["operations"] == 8 * (forward + back)
    assert found["stages"][3]["seconds"] is None
    assert "--disk" in found["stages"][3]["reason"]


def test_no_number_of_a_weight_is_made(scarprune: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = torch.nn.Linear.__init__

    def watch(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        seen.append(self.weight.device.type)

    monkeypatch.setattr(torch.nn.Linear, "__init__", watch)
    result = scarprune(
        "bench", "llama-3.1-70b", "--dry-run", "--gpus", 8, "--tflops", 500, "--json", "-", "--quiet"
    )
    assert result.code == 0
    assert set(seen) == {"meta"}
    found = json.loads(result.out)
    assert found["parameters"] == 70_553_706_496
    assert found["bytes"]["total"] == 2 * 70_553_706_496
    assert found["machine"]["operations_per_second"] == 500e12
    assert found["placement"]["shards"] * found["placement"]["copies"] == 8


def test_the_cpu_at_hand_is_measured_where_asked_for(scarprune: Run, tiny: Path, tmp_path: Path) -> None:
    options = ("--dry-run", "--device", "cpu", "--length", 16, "--disk", 1, "--json", "-")
    result = scarprune("bench", bare(tiny, tmp_path / "bare"), *options)
    assert (result.code, result.err) == (0, "")
    found = json.loads(result.out)
    assert (found["machine"]["device"], found["dtype"]) == ("cpu", "float32")
    assert found["bytes"]["total"] == 4 * found["parameters"]
    assert all(stage["seconds"] > 0 for stage in found["stages"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["MODEL", "other", "--dry-run"], "A dry run takes one model, and other is a second."),
        (["MODEL", "--gpus", 2], "--gpus belongs to a dry run, and this is none. Add --dry-run."),
        (["MODEL", "--dry-run", "--gpus", 0], "gpus must be at least 1, and is 0"),
        (["MODEL", "--dry-run", "--blocks", 0], "blocks must be at least 1, and is 0"),
        (["MODEL", "--dry-run", "--tflops", -1], "--tflops must be positive, and is -1.0"),
        (["MODEL", "--dry-run", "--sparsity", 1], "sparsity must lie from 0 to below 1, and is 1.0"),
        (["MODEL", "--dry-run", "--dtype", "int8"], "'int8' is not a dtype"),
        (["llama-3.1-8", "--dry-run"], "Did you mean llama-3.1-8b?"),
        (["/nowhere/at/all", "--dry-run"], "There is no folder /nowhere/at/all"),
    ],
)
def test_wrong_arguments_get_a_sentence(
    scarprune: Run, tiny: Path, arguments: list[object], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = scarprune("bench", *(tiny if word == "MODEL" else word for word in arguments), "--quiet")
    assert result.code == 1
    assert words in " ".join(result.err.split())
