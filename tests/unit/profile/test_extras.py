"""The extra passes against the neighbours' formulas, written out on plain float64 autograd."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scarprune.errors import ArgumentError, ArtifactError, NumericsError, UnsupportedModelError
from scarprune.models.find import find_sites
from scarprune.models.head import Head, find_head
from scarprune.profile import extras as extras_module
from scarprune.profile import passes
from scarprune.profile import run as run_module
from scarprune.profile import state as state_module
from scarprune.profile.gradient import gradient_sums, waves
from scarprune.profile.hessian import unexplained
from scarprune.profile.run import profile_model
from scarprune.profile.sums import EXTRAS
from scarprune.scores.score import score
from scarprune.text.blocks import Blocks
from support.tiny_models import tiny_model

FAMILIES = ["llama", "phi3", "gpt2", "opt"]  # gated, fused, transposed, plain with biases


@pytest.fixture(scope="module")
def blocks():
    ids = np.random.default_rng(0).integers(3, 96, size=(6, 12))
    return Blocks(ids=ids, lengths=np.full(6, 12), bytes=None, protocol="tokens", source="test")


@pytest.fixture(scope="module")
def profiles(blocks):
    return {family: profile_model(tiny_model(family), blocks, extras=tuple(EXTRAS)) for family in FAMILIES}


def slices(model, site):
    """The weights of each projection as the model holds them, one row a channel; gradients the same way."""
    for projection in site.projections:
        weight = model.get_submodule(projection.module).weight
        for tensor in (weight, weight.grad):
            rows = tensor.T if (projection.role == "down") != projection.transposed else tensor
            yield projection.role, rows.chunk(projection.parts)[projection.part].detach().numpy()


def products(model, ids):
    """W * G [m, d] by site and role, G of the loss summed over the targets of ``ids``."""
    model.zero_grad()
    logits = model(input_ids=torch.as_tensor(ids), use_cache=False).logits
    F.cross_entropy(
        logits[:, :-1].flatten(0, 1), torch.as_tensor(ids[:, 1:]).flatten(), reduction="sum"
    ).backward()
    found = {}
    for site in find_sites(model):
        pairs = list(slices(model, site))
        found[site.name] = {
            role: weight * gradient
            for (role, weight), (_, gradient) in zip(pairs[::2], pairs[1::2], strict=True)
        }
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_llm_pruner_and_gisp_are_their_formulas(family, profiles, blocks):
    profile, exact = profiles[family], tiny_model(family).double()
    whole = products(exact, blocks.ids)
    single = [products(exact, row[None]) for row in blocks.ids]
    targets, count = 6 * 11, 6
    for site in profile.sites:
        of_mean = {role: product / targets for role, product in whole[site.name].items()}
        assert set(of_mean) == ({"gate", "up", "down"} if site.gated else {"up", "down"})
        vector = sum(np.abs(product.sum(1)) for product in of_mean.values())
        element1 = sum(np.abs(product).sum(1) for product in of_mean.values())
        element2 = sum(
            ((product / 11) ** 2).sum(1) / count for block in single for product in block[site.name].values()
        )
        for name, expected in (
            ("llm_pruner_vector", vector),
            ("llm_pruner_element1", element1),
            ("llm_pruner_element2", element2),
            ("gisp", element1 / (len(of_mean) * site.width)),
        ):
            np.testing.assert_allclose(
                score(profile, name)[site.name], expected, rtol=1e-4, atol=1e-5 * expected.max(), err_msg=name
            )


@pytest.mark.parametrize("family", FAMILIES)
def test_hfprune_is_its_formula(family, profiles, blocks):
    exact, seen = tiny_model(family).double(), {}
    sites = find_sites(exact)
    for site in sites:

        def keep(module, args, name=site.name):
            args[0].retain_grad()
            seen[name] = args[0]

        exact.get_submodule(site.name).register_forward_pre_hook(keep)
    expected = {site.name: 0.0 for site in sites}
    for row in blocks.ids:
        logits = exact(input_ids=torch.as_tensor(row)[None], use_cache=False).logits
        p = logits.softmax(-1)
        (-(p * p.log()).sum(-1).mean()).backward()
        for name, u in seen.items():
            expected[name] = expected[name] + (u * u.grad).abs().flatten(0, -2).sum(0).detach().numpy() / 6
    for name, values in score(profiles[family], "hfprune").items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-6 * expected[name].max())


@pytest.mark.parametrize("family", FAMILIES)
def test_obs_and_sparsegpt_sum_are_their_formulas(family, profiles, blocks):
    exact, inputs = tiny_model(family).double(), {}
    for site in find_sites(exact):
        for projection in site.projections:
            exact.get_submodule(projection.module).register_forward_pre_hook(
                lambda module, args, key=(site.name, projection.role): inputs.update({key: args[0].detach()})
            )
    products(exact, blocks.ids)  # also fills the gradients that ``slices`` reads
    for site in find_sites(exact):
        weights = dict(list(slices(exact, site))[::2])
        terms = {}
        for role, weight in weights.items():
            x = inputs[site.name, "down" if role == "down" else site.readers[0].role].flatten(0, -2).numpy()
            moment = x.T @ x / len(x)
            damped = moment + 0.01 * np.diag(moment).mean() * np.eye(len(moment))
            inverse = np.diag(np.linalg.inv(damped))
            inverse = np.where(np.diag(moment) > 0, inverse, np.inf)  # what is always zero gives nothing
            terms[role] = (weight**2).sum(1) / inverse if role == "down" else (weight**2 / inverse).sum(1)
        for name, expected in (("obs", terms["down"]), ("sparsegpt_sum", sum(terms.values()))):
            np.testing.assert_allclose(score(profiles[family], name)[site.name], expected, rtol=1e-4)


def test_what_a_channel_gives_that_others_cannot_is_the_residual_of_a_regression():
    """1 / (H^-1)_jj is the mean squared residual of channel j regressed on the others, with a ridge."""
    u = np.random.default_rng(1).standard_normal((40, 5)) @ np.random.default_rng(2).standard_normal((5, 5))
    moment = u.T @ u / 40
    ridge = 0.01 * np.diag(moment).mean()
    found = unexplained(torch.from_numpy(moment), find_sites(tiny_model("llama"))[0])
    for j in range(5):
        # the ridge as more rows of data: root(40 ridge) times the unit vectors
        rows = np.vstack([u, np.sqrt(40 * ridge) * np.eye(5)])
        rest = np.delete(rows, j, axis=1)
        residual = rows[:, j] - rest @ np.linalg.lstsq(rest, rows[:, j], rcond=None)[0]
        assert found[j] == pytest.approx((residual**2).sum() / 40, rel=1e-10)


def test_dead_channels_give_nothing():
    site = find_sites(tiny_model("llama"))[0]
    assert unexplained(torch.diag(torch.tensor([2.0, 0.0])), site).tolist() == pytest.approx([2.01, 0])
    assert unexplained(torch.zeros(2, 2), site).tolist() == [0, 0]


def test_a_matrix_without_an_inverse_is_named():
    site = find_sites(tiny_model("llama"))[0]
    with pytest.raises(NumericsError, match=r"layers.0.mlp.down_proj has no inverse"):
        unexplained(torch.tensor([[1.0, 9.0], [9.0, 1.0]]), site)


# -- how they run ------------------------------------------------------------------------------------


def test_sites_are_taken_in_runs_that_fit():
    sites = find_sites(tiny_model("llama", num_hidden_layers=3))
    one = 4 * 48 * 32 * 3  # float32, three projections
    assert [len(run) for run in waves(sites, 2 * 3 * one)] == [3]
    assert [len(run) for run in waves(sites, 2 * 2 * one)] == [2, 1]
    assert [len(run) for run in waves(sites, 0)] == [1, 1, 1]


def test_runs_of_single_sites_give_the_same_sums(profiles, blocks, monkeypatch):
    monkeypatch.setattr(extras_module, "available_bytes", lambda device: 0)
    single = profile_model(tiny_model("llama"), blocks, extras=["gradient"], redundancy=False)
    assert single.extras == ("gradient",)
    for key, array in single.tensors.items():
        if "/gradient/" in key:
            assert np.array_equal(array, profiles["llama"].tensors[key]), key


def test_nothing_is_left_on_the_model(blocks):
    model = tiny_model("llama")
    profile_model(model, blocks, extras=["gradient", "hessian", "entropy"], redundancy=False)
    for parameter in model.parameters():
        assert parameter.grad is None
        assert not parameter._post_accumulate_grad_hooks
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_an_overflow_in_half_precision_is_tried_again_with_a_smaller_loss(profiles, blocks):
    model = tiny_model("llama").half().requires_grad_(False)
    sums = gradient_sums(find_head(model), find_sites(model), blocks, 96, 2.0**24, lambda amount: None)
    for key, found in sums.items():
        if key.endswith("magnitude"):
            np.testing.assert_allclose(found, profiles["llama"].tensors[key], rtol=0.1)
    with torch.no_grad():
        model.model.embed_tokens.weight[5] = torch.inf
    with pytest.raises(NumericsError, match="is not finite: a weight's gradient overflowed"):
        gradient_sums(find_head(model), find_sites(model), blocks, 96, 1.0, lambda amount: None)


def test_weights_that_are_not_plain_numbers_have_no_gradient(blocks):
    model = tiny_model("llama")
    down = model.model.layers[1].mlp.down_proj
    down.weight = torch.nn.Parameter(down.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(UnsupportedModelError, match=r"layers.1.mlp.down_proj is quantized or not in memory"):
        gradient_sums(Head(model), find_sites(tiny_model("llama")), blocks, 96, 1.0, lambda amount: None)


def test_an_unknown_extra_is_refused(blocks):
    with pytest.raises(ArgumentError, match="An extra is one of entropy, gradient, hessian, not 'truth'"):
        profile_model(tiny_model("llama"), blocks, extras=["truth"])
    with pytest.raises(ArgumentError, match="Extras are not measured with mean_loss=True"):
        profile_model(tiny_model("llama"), blocks, extras=["entropy"], mean_loss=True)


def test_the_time_said_counts_the_extra_passes(blocks):
    state = state_module.State({}, phase=3, next_block=2)
    wanted = run_module._Wanted(("data",), True, 0.01, 0, extras=("entropy", "gradient", "hessian"))
    assert wanted.tokens_left(state, blocks.lengths) == 72 * (1.0 + 1.5 + 1.0) - 24


class Stop(Exception):
    pass


@pytest.mark.parametrize("at", ["entropy_gradient", "gradient_sums", "hessian_sums"])
def test_resume_gives_the_same_bits(profiles, blocks, tmp_path, monkeypatch, at):
    monkeypatch.setattr(state_module.Keeper, "due", lambda self: self.path is not None)
    whole = profile_model(tiny_model("llama"), blocks, batch=2, extras=tuple(EXTRAS))
    module = passes if at == "entropy_gradient" else extras_module
    state, original, calls = tmp_path / "p.partial", getattr(module, at), []

    def stop(*args):
        calls.append(1)
        if len(calls) == (2 if at == "entropy_gradient" else 1):
            raise Stop
        return original(*args)

    monkeypatch.setattr(module, at, stop)
    with pytest.raises(Stop):
        profile_model(tiny_model("llama"), blocks, batch=2, extras=tuple(EXTRAS), resume=state)
    monkeypatch.setattr(module, at, original)
    monkeypatch.setattr(run_module.SumsPass, "take", lambda *args: pytest.fail("pass 1 again"))
    resumed = profile_model(tiny_model("llama"), blocks, extras=tuple(EXTRAS), resume=state)
    assert resumed.tensors.keys() == whole.tensors.keys()
    for key, array in whole.tensors.items():
        assert np.array_equal(array, resumed.tensors[key]), key


def test_a_state_with_other_extras_is_refused(blocks, tmp_path, monkeypatch):
    monkeypatch.setattr(state_module.Keeper, "due", lambda self: self.path is not None)
    monkeypatch.setattr(extras_module, "gradient_sums", lambda *args: (_ for _ in ()).throw(Stop))
    with pytest.raises(Stop):
        profile_model(tiny_model("llama"), blocks, extras=["gradient"], resume=tmp_path / "p.partial")
    with pytest.raises(ArtifactError, match="its extras differ"):
        profile_model(tiny_model("llama"), blocks, extras=["entropy"], resume=tmp_path / "p.partial")
