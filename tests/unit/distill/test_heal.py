"""Short distillation: what it learns, what it keeps, how it goes on, and what it refuses."""

import copy
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from scarprune.distill import lora
from scarprune.distill.heal import heal
from scarprune.distill.judge import Judge
from scarprune.distill.learner import _distance
from scarprune.distill.settings import Settings, usual_rate
from scarprune.distill.train import Training
from scarprune.errors import ArgumentError, ArtifactError, NumericsError, TextError, UnsupportedModelError
from scarprune.models.find import find_sites
from support.healing import dense_and_cut, text
from support.tiny_models import tiny_model, token_blocks

TESTS = Path(__file__).parents[2]
QUICK: dict[str, Any] = {"steps": 3, "batch": 4, "lr": 1e-3}


def state(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def healed(**settings: Any) -> dict[str, torch.Tensor]:
    teacher, student = dense_and_cut()
    # Judged on what is learned, so that the last weights are the best and stay.
    assert heal(student, teacher, text(), held_out=text(), **{**QUICK, **settings}).improved
    return state(student)


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[key] - other[key]).abs().max()) for key in one)


def divergence(teacher: Any, student: Any, blocks: Any) -> float:
    """Mean KL over all tokens, from whole logits in float64."""
    ids = torch.from_numpy(blocks.ids)
    with torch.no_grad():
        wanted, found = (model(ids).logits.double().log_softmax(-1) for model in (teacher, student))
    return float((wanted.exp() * (wanted - found)).sum(-1).mean())


# -- it learns -------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gemma2"])
def test_a_short_heal_lowers_the_divergence_on_text_it_never_saw(family: str) -> None:
    teacher, student = dense_and_cut(family)
    seen, unseen = text(24).take(np.arange(20)), text(24).take(np.arange(20, 24))
    before, untouched = divergence(teacher, student, unseen), state(teacher)
    result = heal(student, teacher, seen, held_out=unseen, steps=25, batch=8, lr=3e-3)
    assert result.before == pytest.approx(before, rel=1e-4)
    assert result.after == pytest.approx(divergence(teacher, student, unseen), rel=1e-4)
    assert result.after < 0.8 * result.before
    assert result.improved
    assert (result.steps, result.tokens) == (25, 25 * 8 * 12)
    assert furthest(state(teacher), untouched) == 0
    assert not any(parameter.requires_grad for parameter in student.parameters())


def test_hidden_states_can_count_too() -> None:
    assert furthest(healed(), healed(hidden_weight=1.0)) > 1e-4


def test_distance_of_hidden_states_by_hand() -> None:
    # |(1, 2) - (0, 2)|^2 / |(0, 2)|^2 + |(3, 0) - (1, 0)|^2 / |(1, 0)|^2 = 1/4 + 4
    found, wanted = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([[0.0, 2.0], [1.0, 0.0]])
    assert _distance(found, wanted).item() == pytest.approx(4.25)


def test_a_budget_of_time_ends_it() -> None:
    teacher, student = dense_and_cut()
    result = heal(student, teacher, text(), seconds=1.0, batch=4)
    assert result.steps > 3
    assert result.seconds < 3.0


# -- the same whatever the way ---------------------------------------------------------------------


def test_the_rate_is_a_share_of_the_median_size_of_the_matrices_for_each_nat_within_bounds() -> None:
    model = torch.nn.Sequential(*[torch.nn.Linear(4, 4) for _ in range(3)])
    for layer, size in zip(model, (0.1, 0.4, 5.0), strict=True):
        torch.nn.init.constant_(layer.weight, -size)
        torch.nn.init.constant_(layer.bias, 100.0)  # no matrix
    for nats, rate in ((0.01, 5.4e-4), (0.1, 5.4e-4), (0.2, 1.08e-3), (0.5, 2.7e-3), (8.0, 2.7e-3)):
        assert usual_rate(model, nats) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("settings", "rate"), [({"lora": 4}, 3e-4), ({"lr": 0.01, "lora": 4}, 0.01), ({"lr": 0.02}, 0.02)]
)
def test_adapters_and_rates_that_are_asked_for_do_not_go_by_the_weights(
    settings: dict[str, Any], rate: float
) -> None:
    assert Settings(**settings).rate_for(torch.nn.Linear(4, 4), 0.3) == rate


def test_the_rate_that_was_taken_is_told() -> None:
    teacher, student = dense_and_cut()
    before = copy.deepcopy(student)
    result = heal(student, teacher, text(), steps=1, batch=4)
    assert result.as_json()["settings"]["lr"] == usual_rate(before, result.before) > 0


@pytest.mark.parametrize("compile", ["objective", "layers"])
def test_where_the_compiler_fails_training_goes_on_without_it(
    compile: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = healed()

    def broken(function: Any, **options: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("no compiler here")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    assert furthest(healed(compile=compile), plain) == 0
    assert capsys.readouterr().err.count("torch.compile failed, so training goes on without it") == 1


def test_accumulation_equals_one_larger_batch() -> None:
    assert furthest(healed(micro=4), healed(micro=1)) < 1e-5


def test_checkpointing_changes_nothing() -> None:
    assert furthest(healed(), healed(checkpointing=True)) < 1e-6
    assert "forward" not in vars(dense_and_cut()[1].model.layers[0])


def test_kept_answers_of_the_teacher_are_those_it_would_give(monkeypatch: pytest.MonkeyPatch) -> None:
    many = {"steps": 12, "cuts": 2}  # 15 blocks of an epoch, batches of 4: the cuttings come again
    kept = healed(**many)
    monkeypatch.setattr(Training, "_make_room", lambda self, like: None)
    assert furthest(kept, healed(**many)) == 0
    assert furthest(kept, healed(steps=12)) > 1e-5


def test_two_processes_equal_one(tmp_path: Path) -> None:
    out = tmp_path / "two.safetensors"
    script = [sys.executable, "-m", "support.two_processes", str(tmp_path / "store"), str(out)]
    path = os.pathsep.join([str(TESTS), *filter(None, sys.path)])
    running = [
        subprocess.Popen(script, env={**os.environ, "RANK": str(rank), "PYTHONPATH": path}) for rank in (0, 1)
    ]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    assert furthest(load_file(out), healed()) < 1e-5


# -- interrupted -----------------------------------------------------------------------------------


def interrupt(monkeypatch: pytest.MonkeyPatch, step: int) -> Callable[[], None]:
    whole = Training._step

    def once(self: Training, rate: float) -> None:
        if self.state.step == step:
            raise KeyboardInterrupt
        whole(self, rate)

    monkeypatch.setattr(Training, "_step", once)
    return lambda: monkeypatch.setattr(Training, "_step", whole)


@pytest.mark.parametrize("adapters", [None, 2])
def test_resumed_equals_uninterrupted_bit_for_bit(
    adapters: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**QUICK, "steps": 8, "lora": adapters}
    expected = healed(**settings)
    kept = tmp_path / "heal.state"
    go_on = interrupt(monkeypatch, 5)
    with pytest.raises(KeyboardInterrupt):
        healed(**settings, resume=kept)
    go_on()
    teacher, student = dense_and_cut()
    result = heal(student, teacher, text(), held_out=text(), resume=kept, **settings)
    assert furthest(state(student), expected) == 0
    assert [entry["step"] for entry in result.history] == list(range(1, 9))


def test_the_state_is_tensors_and_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        healed(resume=tmp_path / "heal.state")
    with safe_open(tmp_path / "heal.state", "numpy") as file:
        assert set(file.keys()) == {"master", "best", "exp_avg", "exp_avg_sq", "nats"}


def test_a_state_of_other_settings_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = interrupt(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        healed(resume=tmp_path / "heal.state")
    go_on()
    with pytest.raises(ArtifactError, match=r"belongs to another heal: its lr differ"):
        healed(resume=tmp_path / "heal.state", lr=2e-3)


# -- what is kept ----------------------------------------------------------------------------------


def judge_says(monkeypatch: pytest.MonkeyPatch, nats: list[float]) -> list[dict[str, torch.Tensor]]:
    """Let the held-out judgements be ``nats``; what was judged is remembered."""
    seen: list[dict[str, torch.Tensor]] = []

    def say(self: Judge, student: Any) -> float:
        seen.append(state(student.model))
        return nats[len(seen) - 1]

    monkeypatch.setattr(Judge, "nats", say)
    return seen


def test_the_best_on_held_out_blocks_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = judge_says(monkeypatch, [1.0, 0.8, 0.5, 0.7])
    teacher, student = dense_and_cut()
    result = heal(student, teacher, text(), judgements=3, **QUICK)
    assert (result.before, result.after) == (1.0, 0.5)
    assert [entry["held_out_nats"] for entry in result.history] == [0.8, 0.5, 0.7]
    assert furthest(state(student), seen[2]) == 0
    assert furthest(state(student), seen[3]) > 0


def test_never_worse_than_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    teacher, student = dense_and_cut()
    before = state(student)
    result = heal(student, teacher, text(), steps=4, batch=4, lr=3.0)
    assert min(entry["held_out_nats"] for entry in result.history) > result.before
    assert not result.improved
    assert furthest(state(student), before) == 0
    assert "the weights stay as they came" in capsys.readouterr().err


def test_an_error_leaves_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = judge_says(monkeypatch, [1.0, 0.8])
    interrupt(monkeypatch, 2)
    teacher, student = dense_and_cut()
    with pytest.raises(KeyboardInterrupt):
        heal(student, teacher, text(), judgements=2, **QUICK)
    assert furthest(state(student), seen[1]) == 0


def test_the_best_before_an_interruption_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = judge_says(monkeypatch, [1.0, 0.5, 0.9, 0.8])
    go_on = interrupt(monkeypatch, 2)
    teacher, student = dense_and_cut()
    settings = {**QUICK, "judgements": 3, "resume": tmp_path / "heal.state"}
    with pytest.raises(KeyboardInterrupt):
        heal(student, teacher, text(), **settings)
    go_on()
    teacher, student = dense_and_cut()
    result = heal(student, teacher, text(), **settings)
    assert [entry["held_out_nats"] for entry in result.history] == [0.5, 0.9, 0.8]
    assert result.after == 0.5
    assert furthest(state(student), seen[1]) == 0


def test_a_model_in_bfloat16_is_judged_in_the_numbers_it_ends_with() -> None:
    teacher, student = dense_and_cut()
    student.bfloat16()
    unseen = text(24).take(np.arange(20, 24))
    result = heal(student, teacher, text(20), held_out=unseen, **QUICK)
    assert {parameter.dtype for parameter in student.parameters()} == {torch.bfloat16}
    assert result.after == pytest.approx(divergence(teacher, student.float(), unseen), rel=1e-4)


# -- adapters --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_merged_adapters_compute_what_they_did_before(family: str) -> None:
    model = tiny_model(family)
    plain, names, ids = model(token_blocks()).logits, list(model.state_dict()), token_blocks()
    wrapper = lora.add_adapters(model, 4, seed=0)
    assert torch.equal(model(ids).logits, plain)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    adapted = model(ids).logits
    lora.merge(wrapper)
    assert list(model.state_dict()) == names
    assert (adapted - plain).abs().max() > 0.1
    torch.testing.assert_close(model(ids).logits, adapted, rtol=1e-4, atol=1e-4)


def test_adapters_alone_change_layers_alone() -> None:
    before, after = state(dense_and_cut()[1]), healed(lora=2)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("model.layers.") and name.endswith("proj.weight") for name in changed)
    assert len(changed) == 2 * 7


def test_adapters_without_peft_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else find(name))
    with pytest.raises(ArgumentError, match=r"LoRA needs the package peft.*scarprune\[heal\]"):
        healed(lora=2)


# -- refused ---------------------------------------------------------------------------------------


def test_a_teacher_of_another_vocabulary_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="teacher's vocabulary has 120 ids and the student's 96"):
        heal(dense_and_cut()[1], tiny_model("llama", vocab_size=120), text(), **QUICK)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"batch": 0}, "batch must be positive, not 0"),
        ({"lr": -1.0}, "lr must be positive"),
        ({"warmup": 1.0}, "warmup is a share"),
        ({"lr": float("inf")}, "lr must be positive, not inf"),
        ({"hidden_weight": -0.1}, "hidden_weight must be 0 or more, not -0.1"),
        ({"hidden_weight": float("nan")}, "hidden_weight must be 0 or more, not nan"),
        ({"compile": "all"}, "compile is auto"),
        ({"dtype": "float16"}, "not in 'float16'"),
        ({"steps": 0}, "budget of steps must be positive"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ArgumentError, match=sentence):
        healed(**settings)


def test_one_block_is_too_little_and_long_ones_do_not_fit() -> None:
    teacher, student = dense_and_cut()
    with pytest.raises(TextError, match="1 block of text is too little"):
        heal(student, teacher, text(1), **QUICK)
    with pytest.raises(TextError, match="context is 64"):
        heal(student, teacher, text(4, 80), **QUICK)


def test_a_divergence_that_is_not_finite_is_an_error_and_leaves_the_model() -> None:
    teacher, student = dense_and_cut()
    before = state(student)
    teacher.lm_head.weight[0, 0] = torch.nan
    with pytest.raises(NumericsError, match="divergence on the held-out blocks is nan"):
        heal(student, teacher, text(), **QUICK)
    assert furthest(state(student), before) == 0


def test_the_student_is_a_cut_one_here() -> None:
    assert {site.width for site in find_sites(dense_and_cut()[1])} == {24}
