"""What only a GPU can show of healing: run on demand with ``pytest -m gpu``."""

from typing import Any

import numpy as np
import pytest
import torch

from scarprune.distill.heal import heal
from scarprune.distill.objective import divergence_rows
from scarprune.distill.train import Training
from support.healing import dense_and_cut, text

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
QUICK: dict[str, Any] = {"steps": 12, "batch": 4, "lr": 1e-3, "compile": "none"}


def healed(device: str = "cuda", family: str = "llama", **settings: Any) -> dict[str, torch.Tensor]:
    teacher, student = (model.to(device) for model in dense_and_cut(family))
    result = heal(student, teacher, text(), held_out=text(), **{**QUICK, **settings})
    assert result.improved
    return {name: tensor.cpu() for name, tensor in student.state_dict().items()}


def close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], allowed: float) -> None:
    for name in one:
        assert float((one[name] - other[name]).abs().max()) < allowed, name


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "mistral", "opt"])
def test_graphs_equal_eager_steps(family: str) -> None:
    eager = healed(family=family, dtype="float32", graph=False)
    close(healed(family=family, dtype="float32", graph=True), eager, 1e-4)


def test_float32_equals_the_cpu() -> None:
    close(healed(dtype="float32"), healed("cpu"), 2e-4)


def test_compiled_layers_and_objective_equal_plain_ones() -> None:
    plain = healed(dtype="float32", graph=False)
    close(healed(dtype="float32", compile="objective"), plain, 1e-4)
    close(healed(dtype="float32", compile="layers"), plain, 1e-4)


def test_compiled_rows_equal_plain_ones() -> None:
    logits = [torch.randn(64, 1000, device="cuda", dtype=torch.bfloat16) for _ in range(2)]
    for found, expected in zip(
        torch.compile(divergence_rows)(*logits), divergence_rows(*logits), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize(
    "changes", [{}, {"checkpointing": True}, {"hidden_weight": 1.0}, {"lora": 4, "lr": 1e-2}]
)
def test_bfloat16_learns_too(changes: dict[str, Any]) -> None:
    healed(**changes)


def test_kept_answers_of_the_teacher_are_those_it_would_give(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = healed(cuts=2, dtype="float32")
    monkeypatch.setattr(Training, "_make_room", lambda self, like: None)
    close(healed(cuts=2, dtype="float32"), kept, 1e-5)


def test_a_budget_of_time_is_kept_to() -> None:
    teacher, student = (model.cuda() for model in dense_and_cut())
    result = heal(student, teacher, text(), seconds=5.0, batch=4, compile="none")
    assert 3.0 < result.seconds < 6.5
    assert result.steps > 50
    assert np.isfinite(result.after)
