"""Removals in a growing batch equal removals made one at a time by other means."""

import numpy as np
import pytest
import torch

from scarprune.errors import ArgumentError
from scarprune.evaluate.ablate import Ablator
from scarprune.evaluate.removal import Removal
from scarprune.text.blocks import Blocks
from support.tiny_models import tiny_model

GROWS = {"llama": True, "gpt2": True, "gemma2": True, "opt": None, "bloom": None, "falcon": None}


def _blocks(rows=3, tokens=16, seed=0):
    ids = np.random.default_rng(seed).integers(3, 90, (rows, tokens))
    return Blocks(ids=ids, lengths=np.full(rows, tokens), bytes=None, protocol="tokens", source="test")


def _one_by_one(model, site, ids, change):
    """Losses [blocks] by transformers itself, float64 sums, with ``change`` applied to u by a plain hook."""
    module = model.get_submodule(site.name)
    handle = module.register_forward_pre_hook(lambda m, args: (change(args[0].clone()), *args[1:]))
    try:
        with torch.no_grad():
            rows = []
            for row in torch.from_numpy(ids):
                logits = model(row[None]).logits[0, :-1].double()
                rows.append(torch.nn.functional.cross_entropy(logits, row[1:], reduction="sum").item())
    finally:
        handle.remove()
    return np.array(rows)


@pytest.mark.parametrize("family", GROWS)
def test_each_row_is_that_removal_made_alone(family):
    model = tiny_model(family)
    blocks = _blocks()
    ablator = Ablator(model, blocks)
    if GROWS[family]:
        assert ablator.branch == "site"
    site = ablator.sites[1]
    chosen = [np.array([3]), np.array([0, 7, 11]), np.arange(20)]
    found = ablator.losses([Removal({site.name: channels}) for channels in chosen])
    for row, channels in zip(found, chosen, strict=True):

        def zero(u, channels=channels):
            u[..., channels] = 0
            return u

        np.testing.assert_allclose(row, _one_by_one(model, site, blocks.ids, zero), rtol=2e-5)


def test_means_and_positions_are_kept_to():
    model = tiny_model("llama")
    blocks = _blocks()
    ablator = Ablator(model, blocks)
    site = ablator.sites[0]
    means = np.linspace(-1, 1, site.width)

    def change(u):
        u[:, 2:, [4, 5]] = torch.from_numpy(means[[4, 5]]).to(u)
        return u

    removal = Removal({site.name: np.array([4, 5])}, {site.name: means}, first_position=2)
    found = ablator.losses([removal])[0]
    np.testing.assert_allclose(found, _one_by_one(model, site, blocks.ids, change), rtol=2e-5)
    assert np.abs(found - ablator.dense()).max() > 1e-4  # the change is one that could be missed


def test_several_sites_at_once_equal_nested_hooks():
    model = tiny_model("llama")
    blocks = _blocks(2)
    ablator = Ablator(model, blocks)
    first, second = ablator.sites
    removals = [
        Removal({first.name: np.array([1, 2])}),
        Removal({first.name: np.array([9]), second.name: np.array([0, 1, 2, 3])}),
        Removal({second.name: np.array([5])}),
    ]
    found = ablator.losses(removals)
    for row, removal in zip(found, removals, strict=True):
        handles = []
        for name, channels in removal.channels.items():

            def hook(module, args, channels=channels):
                u = args[0].clone()
                u[..., channels] = 0
                return (u, *args[1:])

            handles.append(model.get_submodule(name).register_forward_pre_hook(hook))
        expected = _one_by_one(model, first, blocks.ids, lambda u: u)
        for handle in handles:
            handle.remove()
        np.testing.assert_allclose(row, expected, rtol=2e-5)


def test_nothing_removed_is_the_dense_loss_and_no_hook_stays():
    model = tiny_model("llama")
    blocks = _blocks()
    ablator = Ablator(model, blocks)
    expected = _one_by_one(model, ablator.sites[0], blocks.ids, lambda u: u)
    np.testing.assert_allclose(ablator.dense(), expected, rtol=1e-6)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_channels_and_sites_that_are_not_there_are_named():
    ablator = Ablator(tiny_model("llama"), _blocks())
    with pytest.raises(ArgumentError, match="no site 'nowhere'"):
        ablator.losses([Removal({"nowhere": np.array([0])})])
    with pytest.raises(ArgumentError, match="outside 0 to 47"):
        ablator.losses([Removal({ablator.sites[0].name: np.array([48])})])
