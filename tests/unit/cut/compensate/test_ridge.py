"""Least squares of the down projection against NumPy on the tokens themselves."""

from typing import Any

import numpy as np
import pytest
import torch

from scarprune.cut.compensate import ridge
from scarprune.cut.compensate.job import Job
from scarprune.cut.compensate.kinds.ls import COMPENSATION
from scarprune.cut.compensate.ridge import condition_number
from scarprune.cut.prune import prune_model
from scarprune.models.find import find_sites
from scarprune.models.site import Site
from scarprune.models.weights import bias, matrix
from scarprune.text.blocks import Blocks
from scarprune.text.hold_out import hold_out
from support.plans import random_plan
from support.texts import own_blocks, random_blocks
from support.tiny_models import WIDTH, tiny_model

KEPT = 20
TEXT = random_blocks(96)


@torch.no_grad()
def channels(model: Any, site: Site, text: Blocks) -> np.ndarray:
    """u of every token of ``text``: [tokens, m]."""
    seen: list[torch.Tensor] = []
    handle = model.get_submodule(site.down.module).register_forward_pre_hook(
        lambda module, args: seen.append(args[0].flatten(0, -2))
    )
    model(input_ids=torch.from_numpy(text.ids), use_cache=False)
    handle.remove()
    return torch.cat(seen).double().numpy()


def lstsq(u: np.ndarray, model: Any, site: Site, keep: np.ndarray, damping: float) -> tuple[np.ndarray, ...]:
    """Weights [d, k] and bias [d] (or None) that minimise |W u + b - W' u_K - b'|^2 + lambda |W' - W_K|^2.

    The penalty is rows of its own: NumPy solves one least squares problem for the change of W_K.
    """
    weight = matrix(model, site.down).detach().double().numpy()
    offset = bias(model, site.down)
    gone = np.setdiff1d(np.arange(site.width), keep)
    missing, inputs = u[:, gone] @ weight[:, gone].T, u[:, keep]
    penalty = np.zeros((0, len(keep)))
    if damping:
        centred = inputs if offset is None else inputs - inputs.mean(axis=0)
        scale = damping * (centred**2).mean()  # of the diagonal of the mean of u u^T
        penalty = np.sqrt(len(u) * scale) * np.eye(len(keep))
    design, target = np.vstack([inputs, penalty]), np.vstack([missing, np.zeros((len(penalty), len(weight)))])
    if offset is not None:
        column = np.concatenate([np.ones(len(u)), np.zeros(len(penalty))])
        design = np.column_stack([design, column])
    found = np.linalg.lstsq(design, target, rcond=None)[0]
    if offset is None:
        return weight[:, keep] + found.T, None
    return weight[:, keep] + found[:-1].T, offset.detach().double().numpy() + found[-1]


@pytest.mark.parametrize(  # not opt at 0: its relu leaves dead channels
    ("family", "damping"),
    [("llama", 0.0), ("gpt2", 0.0), ("llama", 0.1), ("phi3", 0.1), ("opt", 0.1), ("gpt2", 0.1)],
)
def test_the_solution_is_numpys(family: str, damping: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ridge, "DAMPINGS", (damping,))
    model = tiny_model(family).double()
    plan = random_plan(model, KEPT)
    fit, held = hold_out(TEXT)
    for found in COMPENSATION.fit(Job(model, plan, KEPT, fit, held)):
        site, keep = found.site, plan.keep[found.site.name]
        weight, offset = lstsq(channels(model, site, fit), model, site, keep, damping)
        values = found.weights["ls"][f"{site.down.module}.weight"]
        values = values.T if site.down.transposed else values
        np.testing.assert_allclose(values, weight, rtol=1e-7, atol=1e-9)
        name = f"{site.down.module}.bias"
        assert (name in found.weights["ls"]) == (offset is not None)
        if offset is not None:
            np.testing.assert_allclose(found.weights["ls"][name], offset, rtol=1e-7, atol=1e-9)
        # The held-out errors, from the tokens themselves.
        u, dense = channels(model, site, held), matrix(model, site.down).detach().numpy()
        shift = 0 if offset is None else offset - bias(model, site.down).detach().numpy()
        energy = ((u @ dense.T) ** 2).sum()
        for step, error in (
            ("none", u @ dense.T - u[:, keep] @ dense[:, keep].T),
            ("ls", u @ dense.T - u[:, keep] @ weight.T - shift),
        ):
            assert found.facts["errors"][step] == pytest.approx((error**2).sum() / energy, rel=1e-6)


def test_channels_that_others_make_up_for_leave_no_trace() -> None:
    model = tiny_model("llama").double()
    plan = random_plan(model, KEPT)
    with torch.no_grad():
        for layer, site in zip(model.model.layers, find_sites(model), strict=True):
            keep = plan.keep[site.name]
            for i, gone in enumerate(np.setdiff1d(np.arange(WIDTH), keep)):
                twin = keep[i % KEPT]  # the same gate, and up times a factor: so is u
                layer.mlp.gate_proj.weight[gone] = layer.mlp.gate_proj.weight[twin]
                layer.mlp.up_proj.weight[gone] = layer.mlp.up_proj.weight[twin] * (0.5 + i / 10)
    plan = random_plan(model, KEPT)  # for the planted weights
    ids = torch.from_numpy(random_blocks(seed=5).ids)
    with torch.no_grad():
        dense = model(ids).logits
    report = prune_model(model, plan, "ls", blocks=own_blocks(model))
    torch.testing.assert_close(model(ids).logits, dense, rtol=1e-3, atol=1e-4)
    assert report.compensation is not None
    for site in report.compensation["sites"]:
        assert site["errors"]["none"] > 0.05
        assert site["errors"]["ls"] < 1e-7


@pytest.mark.parametrize("trouble", ["little text", "twins", "dead channels", "all dead"])
def test_a_singular_matrix_is_damped_and_never_worse_than_none(trouble: str) -> None:
    model = tiny_model("llama")
    text = random_blocks(2, 4) if trouble == "little text" else random_blocks(4, 12)
    with torch.no_grad():
        for layer in model.model.layers:
            up = layer.mlp.up_proj.weight
            if trouble == "twins":
                up[: WIDTH // 2] = up[WIDTH // 2 :]
                layer.mlp.gate_proj.weight[: WIDTH // 2] = layer.mlp.gate_proj.weight[WIDTH // 2 :]
            if trouble == "dead channels":
                up[::2] = 0
            if trouble == "all dead":
                up[:] = 0
    report = prune_model(model, random_plan(model, KEPT), "ls", blocks=text)
    assert report.compensation is not None
    for site in report.compensation["sites"]:
        assert 0 <= site["errors"]["ls"] <= site["errors"]["none"]
        assert (site["kept"] == "none") == (site["damping"] is None) == (site["condition"] is None)
        assert site["kept"] == "none" or trouble != "all dead"
    assert all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())
    losses = report.compensation["held_out_nats_per_token"]
    assert losses[report.compensation["kept"]] == min(losses.values())


def test_the_condition_number_is_that_of_the_eigenvalues() -> None:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    values = np.concatenate([[1e4], rng.uniform(1, 100, 38), [1e-2]])
    square = torch.from_numpy(basis @ np.diag(values) @ basis.T)
    assert condition_number(square, torch.linalg.cholesky(square)) == pytest.approx(1e6, rel=1e-3)
