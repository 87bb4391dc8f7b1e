"""``scarprune bench`` from its arguments to its words and JSON."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from scarprune.errors import UnsupportedModelError
from scarprune.pipeline.bench import bench

Run = Callable[..., Any]
QUICK = ("--length", 16, "--new", 3, "--rounds", 3, "--quiet")


@pytest.fixture
def small(scarprune: Run, tiny: Path, profile: Path, tmp_path: Path) -> Path:
    plan = tmp_path / "plan.json"
    scarprune("plan", profile, "--sparsity", 0.5, "--multiple-of", 1, "--out", plan)
    assert scarprune("cut", tiny, plan, tmp_path / "small").code == 0
    return tmp_path / "small"


def test_two_models_side_by_side(scarprune: Run, tiny: Path, small: Path, tmp_path: Path) -> None:
    result = scarprune("bench", tiny, small, "--json", tmp_path / "bench.json", *QUICK)
    assert (result.code, result.err) == (0, "")
    found = json.loads((tmp_path / "bench.json").read_text())
    assert found["format"] == "scarprune.bench"
    dense, cut = found["models"]
    # Two layers, 24 of 48 channels gone, three matrices, hidden size 32, in float32 on a CPU.
    assert dense["parameters"] - cut["parameters"] == 2 * 24 * 3 * 32
    assert dense["bytes"]["total"] - cut["bytes"]["total"] == 4 * 2 * 24 * 3 * 32
    for phase in ("prefill", "decode"):
        ours, theirs = (np.array(m[f"{phase}_tokens_per_second"]["rounds"]) for m in (cut, dense))
        assert len(ours) == 3
        assert found["ratio"][phase]["median"] == pytest.approx(np.median(ours / theirs))
        assert found["limit"][phase] > 1
    assert dense["peak_bytes"] is None
    assert "CUDA" in dense["peak_bytes_reason"]
    assert [need["met"] for need in cut["readiness"]["needs"]] == [False] * 4
    assert "parameters" in result.out
    assert "The feed-forward networks are" in result.out
    assert "would fit  GGUF Q4_0/Q8_0 at 32; tensor-core tiles at 64" in result.out


def test_one_model_alone(scarprune: Run, tiny: Path) -> None:
    result = scarprune("bench", tiny, "--json", "-", *QUICK)
    assert (result.code, result.err) == (0, "")
    found = json.loads(result.out)
    assert len(found["models"]) == 1
    assert "ratio" not in found
    assert "model" in scarprune("bench", tiny, *QUICK).out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--batch", 0], "batch must be at least 1, and is 0"),
        (["--length", 100], "100 + 32 tokens are more than the model's context of 64"),
    ],
)
def test_what_cannot_be_timed_is_said(scarprune: Run, tiny: Path, options: list[object], words: str) -> None:
    result = scarprune("bench", tiny, *options)
    assert result.code == 1
    assert words in result.err


def test_dtypes_are_not_compared() -> None:
    dtypes = iter((torch.float32, torch.bfloat16))
    loading: Any = SimpleNamespace(load=lambda source: (SimpleNamespace(dtype=next(dtypes)), None))
    with pytest.raises(UnsupportedModelError, match=r"bfloat16 and float32.*--dtype bfloat16"):
        bench("a", "b", loading=loading)
