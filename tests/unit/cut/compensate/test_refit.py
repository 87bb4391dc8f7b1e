"""Training a layer at a time: it helps, it never leaves a model worse, and it keeps to its bounds."""

import copy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from scarprune.cut.compensate import train as train_module
from scarprune.cut.compensate.apply import Making, put
from scarprune.cut.compensate.compensation import Fitted, find_compensation
from scarprune.cut.compensate.job import Bounds, Job
from scarprune.cut.compensate.kinds import refit as refit_module
from scarprune.cut.compensate.kinds.refit import _compiles, fit
from scarprune.cut.compensate.train import Pace, Trainee, pace_of, train
from scarprune.cut.prune import prune_model
from scarprune.errors import ArgumentError, MemoryBudgetError, TextError
from scarprune.models.fingerprint import fingerprint_model
from scarprune.profile.hidden import HiddenStates
from scarprune.profile.walk import Walk
from scarprune.text.blocks import Blocks
from scarprune.text.hold_out import hold_out
from support.plans import random_plan
from support.texts import own_blocks, random_blocks
from support.tiny_models import tiny_model

TEXT = own_blocks(tiny_model("llama"), 64)
FIT, HELD = hold_out(TEXT)
BOUNDS = Bounds(steps=40, tokens=128)


@pytest.fixture(scope="module")
def job() -> Job:
    model = tiny_model("llama").requires_grad_(False)
    return Job(model, random_plan(model, 20), 20, FIT, HELD, BOUNDS)


def test_each_layer_comes_nearer_to_the_dense_hidden_states(job: Job) -> None:
    for found in fit(job, rate=0.02):
        errors = found.facts["errors"]
        assert list(errors) == ["none", "ls", "refit"]
        assert errors["refit"] < errors["ls"] <= errors["none"]
        assert found.facts["kept"] == "refit"


def test_errors_are_those_of_the_cut_models_own_hidden_states_and_predictions(job: Job) -> None:
    sites = list(fit(job, rate=0.02))
    dense, cut = job.model, tiny_model("llama")
    ids = torch.from_numpy(HELD.ids)
    prune_model(cut, random_plan(cut, 20))
    for found in sites:
        for name, values in found.weights["refit"].items():
            cut.get_parameter(name).data.copy_(values)
    with torch.no_grad():
        wanted, given = (model(ids, output_hidden_states=True) for model in (dense, cut))
    before, after = wanted.hidden_states[1].double(), given.hidden_states[1].double()
    error = ((after - before).square().sum(-1) / before.square().sum(-1)).mean()
    assert sites[0].facts["errors"]["refit"] == pytest.approx(float(error), rel=1e-4)
    p, q = (torch.log_softmax(out.logits.double(), -1) for out in (wanted, given))
    divergence = (p.exp() * (p - q)).sum(-1).mean()
    assert sites[-1].facts["errors"]["refit"] == pytest.approx(float(divergence), rel=1e-3)


def test_layers_are_trained_on_the_cut_models_own_hidden_states(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []

    def spy(trainee: Trainee, *rest: Any, **options: Any) -> dict[str, torch.Tensor]:
        seen.append(trainee.given.states[TEXT.ids.shape[1]].clone())
        return train(trainee, *rest, **options)

    monkeypatch.setattr("scarprune.cut.compensate.kinds.refit.train", spy)
    made, cut = list(fit(job, rate=0.02)), tiny_model("llama")
    prune_model(cut, random_plan(cut, 20))
    for found in made:
        for name, values in found.weights["refit"].items():
            cut.get_parameter(name).data.copy_(values)
    with torch.no_grad():
        given = cut(torch.from_numpy(FIT.ids), output_hidden_states=True).hidden_states
    for states, expected in zip(seen, given[:2], strict=True):
        torch.testing.assert_close(states, expected, rtol=1e-4, atol=1e-5)


def test_where_the_compiler_fails_all_layers_are_trained_without_it(
    job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = [found.facts["errors"] for found in fit(job)]
    tried: list[int] = []

    def broken(function: Any, **options: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            tried.append(1)
            raise RuntimeError("no compiler here")

        return run

    monkeypatch.setattr("scarprune.cut.compensate.kinds.refit._compiles", lambda job, walk: True)
    monkeypatch.setattr(torch, "compile", broken)
    assert [found.facts["errors"] for found in fit(job)] == plain
    assert tried == [1]
    assert capsys.readouterr().err.count("torch.compile failed, so the rest runs eagerly: no compiler") == 1


@pytest.fixture(scope="module")
def deep() -> Job:
    """Four layers, of which the last has an objective of its own."""
    model = tiny_model("llama", num_hidden_layers=4).requires_grad_(False)
    return Job(model, random_plan(model, 20), 20, FIT, HELD, Bounds(steps=10, tokens=128))


def made(job: Job, monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], list[Any]]:
    """The layers that a trainee was set up for, and what came of all."""
    layers: list[int] = []

    class Counted(Trainee):
        def __init__(self, index: int, *rest: Any) -> None:
            layers.append(index)
            super().__init__(index, *rest)

    monkeypatch.setattr(refit_module, "Trainee", Counted)
    return layers, [found.facts["errors"] for found in fit(job, rate=0.02)]


def test_layers_alike_share_what_is_set_up_and_are_trained_the_same(
    deep: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers, shared = made(deep, monkeypatch)
    assert layers == [0, 3]
    monkeypatch.setattr(Trainee, "take_over", lambda self, *rest: False)
    layers, apart = made(deep, monkeypatch)
    assert layers == [0, 1, 2, 3]
    assert shared == apart


def test_a_layer_that_computes_something_else_is_set_up_anew(
    deep: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = replace(deep, model=copy.deepcopy(deep.model))
    job.model.model.layers[1].mlp.act_fn = torch.nn.ReLU()  # type: ignore[union-attr, index]
    layers, _ = made(job, monkeypatch)
    assert layers == [0, 1, 2, 3]


def test_a_layer_that_is_called_with_something_else_is_set_up_anew(
    deep: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Walk.calls

    def other(walk: Walk, blocks: int, length: int) -> Any:
        found = list(calls(walk, blocks, length))
        args, kwargs = found[2]
        pair = tuple(tensor.clone() for tensor in kwargs["position_embeddings"])
        found[2] = args, {**kwargs, "position_embeddings": pair}
        return found

    monkeypatch.setattr(Walk, "calls", other)
    layers, _ = made(deep, monkeypatch)
    assert layers == [0, 2, 3]


def test_a_layer_that_is_large_beside_the_memory_is_not_held(
    deep: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refit_module, "available_bytes", lambda device: 1 << 16)
    layers, _ = made(deep, monkeypatch)
    assert layers == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("hidden", "layers", "bounds", "device", "worth"),
    [
        (576, 30, Bounds(), "cuda", False),  # 18,000 steps, 0.45 ms each: 8 s, and compiling takes 15
        (576, 30, Bounds(steps=2000), "cuda", True),  # 27 s
        (4096, 32, Bounds(), "cuda", True),  # 19,200 steps, 3.2 ms each: 61 s
        (4096, 32, Bounds(tokens=512), "cuda", False),
        (576, 30, Bounds(seconds=60.0), "cuda", True),
        (576, 30, Bounds(seconds=10.0), "cuda", False),
        (4096, 32, Bounds(), "cpu", False),
    ],
)
def test_layers_are_compiled_where_that_saves_more_than_it_takes(
    job: Job, hidden: int, layers: int, bounds: Bounds, device: str, worth: bool
) -> None:
    layer = SimpleNamespace(site=SimpleNamespace(hidden=hidden))
    walk: Any = SimpleNamespace(device=torch.device(device), layers=[layer] * layers)
    assert _compiles(replace(job, bounds=bounds), walk) is worth


def test_the_dense_model_stays_as_it_is(job: Job) -> None:
    before = {name: values.clone() for name, values in job.model.state_dict().items()}
    list(fit(job))
    for name, values in job.model.state_dict().items():
        assert torch.equal(values, before[name]), name


def test_training_that_goes_wrong_falls_back_layer_by_layer(job: Job) -> None:
    for found in fit(job, rate=1e4):
        assert found.facts["kept"] in ("none", "ls")
        assert found.facts["fell_back"]
        assert found.weights["refit"] == found.weights["ls"]


def test_the_model_as_a_whole_falls_back_to_the_cheapest_step_that_is_best(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, plain = tiny_model("llama"), tiny_model("llama")
    plan = random_plan(model, 20)
    for each in (model, plain):
        prune_model(each, plan)
    name = "model.layers.1.mlp.down_proj"
    bad = {f"{name}.weight": torch.full_like(model.get_parameter(f"{name}.weight"), 10.0)}
    worse = {**bad, "model.layers.1.mlp.up_proj.weight": torch.full((20, 32), float("nan"))}
    site = next(found.site for found in fit(Job(tiny_model("llama"), plan, 20, FIT, HELD, Bounds(steps=1))))
    facts = {"fell_back": False}
    made = [Fitted(replace(site, name=name), {"ls": bad, "refit": worse}, facts)]
    done = put(model, Making(find_compensation("refit"), made, HELD, 0.0))
    assert done.kept == "none"
    assert done.changed == ()
    assert done.losses["refit"] is None
    assert done.losses["ls"] > done.losses["none"]
    losses = f"none {done.losses['none']:.4f}, ls {done.losses['ls']:.4f}, refit not finite."
    said = capsys.readouterr().err
    assert f"Kept 'none' in place of 'refit': nats per token on held-out text are {losses}" in said
    for key, values in plain.state_dict().items():
        assert torch.equal(model.state_dict()[key], values), key


def test_refit_trains_all_numbers_of_the_layers_and_no_others() -> None:
    model = tiny_model("gpt_neox")
    report = prune_model(model, random_plan(model, 20), "refit", blocks=own_blocks(model), bounds=BOUNDS)
    plain = tiny_model("gpt_neox")
    prune_model(plain, random_plan(plain, 20))
    changed = {n for n, v in plain.state_dict().items() if not torch.equal(v, model.state_dict()[n])}
    assert report.compensation is not None
    assert report.compensation["kept"] == "refit"
    assert changed == {name for name, _ in plain.named_parameters() if ".layers." in name}


def test_the_same_seed_gives_the_same_weights(job: Job) -> None:
    first, second = list(fit(job)), list(fit(job))
    for a, b in zip(first, second, strict=True):
        assert a.weights["refit"].keys() == b.weights["refit"].keys()
        assert all(torch.equal(x, b.weights["refit"][name]) for name, x in a.weights["refit"].items())


@pytest.mark.parametrize("family", ["gpt_neox", "gpt2", "phi3"])
def test_fitting_changes_nothing_in_the_dense_model(family: str) -> None:
    model = tiny_model(family).requires_grad_(False)
    before = {name: values.clone() for name, values in model.state_dict().items()}
    assert list(fit(Job(model, random_plan(model, 20), 20, FIT, HELD, Bounds(steps=4))))
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())


def test_padding_stays_zero() -> None:
    model = tiny_model("llama")
    prune_model(model, random_plan(model, 20, 12), "refit", pad=True, blocks=TEXT, bounds=BOUNDS)
    mlp = model.model.layers[1].mlp
    for matrix in (mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight.T):
        assert bool((matrix[12:] == 0).all())
        assert not bool((matrix[:12] == 0).any())


def test_weights_are_rounded_to_what_will_be_saved() -> None:
    model = tiny_model("llama")
    plan = random_plan(model, 20)
    report = prune_model(model, plan, "ls", blocks=TEXT, save_dtype="bfloat16")
    weight = model.model.layers[0].mlp.down_proj.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, weight.bfloat16().float())
    assert report.compensation is not None
    assert report.bytes_after == 2 * report.parameters_after


# -- bounds ------------------------------------------------------------------------------------------


def test_progress_is_by_steps_or_by_the_clock_whichever_is_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(train_module.time, "perf_counter", lambda: now)
    assert [Pace(4, None, 100.0).progress(step) for step in (0, 1, 4, 9)] == [0, 0.25, 1, 1]
    both = Pace(100, 10.0, 100.0)
    now = 105.0
    assert [both.progress(step) for step in (0, 16, 80)] == [0.5, 0.5, 0.8]
    now = 111.0
    assert both.progress(81) == 1


def test_seconds_are_divided_over_the_layers_that_are_left() -> None:
    assert pace_of(Bounds(seconds=60), 30, elapsed=0).seconds == 2
    assert pace_of(Bounds(seconds=60), 5, elapsed=50).seconds == 2
    assert pace_of(Bounds(seconds=60), 5, elapsed=70).seconds == 0
    assert pace_of(Bounds(), 5, elapsed=70).steps == 600
    assert pace_of(Bounds(seconds=60), 5, elapsed=0).steps is None


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"seconds": -1.0}, {"seconds": float("nan")}, {"tokens": 0}])
def test_bounds_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ArgumentError, match="Compensation cannot be bounded by"):
        Bounds(**wrong)


# -- text ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "held"), [(2, [1]), (16, [15]), (33, [31, 32])])
def test_the_last_sixteenth_is_held_out(count: int, held: list[int]) -> None:
    text = random_blocks(count)
    fit_on, judge_by = hold_out(text)
    assert judge_by.ids.tolist() == text.ids[held].tolist()
    assert fit_on.ids.tolist() == np.delete(text.ids, held, axis=0).tolist()


@pytest.mark.parametrize("name", ["bias", "ls", "refit"])
def test_text_is_needed_and_nothing_is_touched_without_it(name: str) -> None:
    model = tiny_model("llama")
    before, plan = fingerprint_model(model), random_plan(model, 20)
    with pytest.raises(ArgumentError, match=rf"Compensation '{name}' is fitted to text, and no blocks"):
        prune_model(model, plan, name)
    with pytest.raises(TextError, match="1 block of text is too little: at least 2 are needed"):
        prune_model(model, plan, name, blocks=random_blocks(1))
    with pytest.raises(TextError, match="vocabulary"):
        prune_model(model, plan, name, blocks=random_blocks(4, vocabulary=5000))
    assert fingerprint_model(model) == before


def test_work_that_does_not_fit_is_said_and_leaves_the_model_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("scarprune.cut.compensate.kinds.refit.train", full)
    model = tiny_model("llama")
    before, plan = fingerprint_model(model), random_plan(model, 20)
    with pytest.raises(MemoryBudgetError, match="Compensating 15 blocks of text does not fit"):
        prune_model(model, plan, "refit", blocks=random_blocks(16))
    assert fingerprint_model(model) == before
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_draws_take_every_block_once_before_any_twice() -> None:
    ids = np.arange(7 * 8).reshape(7, 8) % 90
    text = Blocks(ids, np.array([8, 8, 8, 8, 8, 5, 5]), None, "tokens", "counted")
    states = HiddenStates(Walk(tiny_model("llama"), text, batch=2))
    draws = states.draws(seed=0, batch=2)
    for _ in range(3):
        epoch = [next(draws) for _ in range(3)]  # two of the five long blocks' pairs, and the short pair
        assert sorted(length for length, _ in epoch) == [5, 8, 8]
        rows = [row for length, taken in epoch for row in taken.tolist() if length == 8]
        assert len(set(rows)) == 4
    length, rows = next(draws)
    assert torch.equal(states.take(length, rows), states.states[length][rows])
