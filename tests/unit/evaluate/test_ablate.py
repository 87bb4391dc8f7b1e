"""Removals in a growing batch equal removals made one at a time by other means."""

import numpy as np
import pytest
import torch

from scarprune.errors import ArgumentError
from scarprune.evaluate import removal as removal_module
from scarprune.evaluate.ablate import Ablator
from scarprune.evaluate.removal import Removal, Together
from scarprune.models.find import find_sites
from scarprune.text.blocks import Blocks
from support.tiny_models import tiny_model

BRANCHES = {
    "llama": "site",
    "gpt2": "site",
    "gemma2": "site",
    "opt": "layer",
    "bloom": "ids",
    "falcon": "site",
}


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


@pytest.mark.parametrize("family", BRANCHES)
def test_each_row_is_that_removal_made_alone(family):
    model = tiny_model(family)
    blocks = _blocks()
    ablator = Ablator(model, blocks)
    assert ablator.branch == BRANCHES[family]
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


class TestBatches:
    """However removals and blocks are put together, rows are what each is alone."""

    @pytest.fixture
    def model(self):
        return tiny_model("llama", num_hidden_layers=4)

    @pytest.fixture
    def removals(self, model):
        rng = np.random.default_rng(3)
        names = [site.name for site in Ablator(model, _blocks()).sites]
        return [
            Removal({name: rng.permutation(48)[:9] for name in names[low:]}, None, first)
            for low, first in ((3, 0), (0, 0), (3, 1), (1, 0), (3, 0), (2, 3), (3, 0))
        ]

    @pytest.fixture
    def blocks(self):
        ids = np.random.default_rng(4).integers(3, 90, (5, 16))
        lengths = np.array([16, 8, 16, 16, 8])
        return Blocks(ids=ids, lengths=lengths, bytes=None, protocol="tokens", source="test")

    @pytest.mark.parametrize("batch", [1, 2, 3, 100, "auto"])
    def test_the_batch_does_not_matter(self, model, blocks, removals, batch):
        alone = [Ablator(model, blocks, batch=1).losses([removal])[0] for removal in removals]
        found = Ablator(model, blocks, batch=batch).losses(removals)
        np.testing.assert_allclose(found, alone, rtol=1e-6)

    def test_layers_below_run_once_for_all_removals(self, model, blocks, removals):
        ablator = Ablator(model, blocks, batch=2)
        tokens = dict.fromkeys(range(4), 0)

        def count(index):
            def hook(module, args, output):
                tokens[index] += output.shape[0] * output.shape[1]

            return hook

        handles = [
            layer.register_forward_hook(count(index)) for index, layer in enumerate(model.model.layers)
        ]
        ablator.losses([removals[0], removals[4], removals[6]])  # three that begin at the last layer
        for handle in handles:
            handle.remove()
        every = int(blocks.lengths.sum())
        assert tokens == {0: every, 1: every, 2: every, 3: 3 * every}

    def test_memory_that_runs_out_halves_the_batch(self, model, blocks, removals, monkeypatch):
        expected = Ablator(model, blocks).losses(removals)
        ablator, given = Ablator(model, blocks), []
        last = model.model.layers[-1]

        def full(module, args, output):
            given.append(len(output))
            if len(output) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory.")

        handle = last.register_forward_hook(full)
        found = ablator.losses(removals)
        handle.remove()
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert max(given) > 3
        assert not any(module._forward_pre_hooks for module in model.modules())
        assert not any("_compiled_call_impl" in vars(module) for module in model.modules())


@pytest.mark.parametrize(("means", "copies"), [(None, 1), ("each", 2)])
def test_channels_of_all_sites_reach_the_device_together(means, copies, monkeypatch):
    """A copy for each site was what masks lost most by on a GPU."""
    made = []
    monkeypatch.setattr(removal_module, "to_device", lambda tensor, device: made.append(tensor) or tensor)
    sites = find_sites(tiny_model("llama"))
    gone = {site.name: np.array([index, 7]) for index, site in enumerate(sites)}
    set_to = None if means is None else {site.name: np.full(site.width, 2.0) for site in sites}
    Together(sites, [Removal(gone, set_to), Removal({sites[1].name: np.array([3])})], 2, torch.device("cpu"))
    assert len(made) == copies
    width = sites[0].width
    assert made[0].tolist() == [0, 7, 1, 7, width + 3]


def test_channels_in_any_order_and_named_twice_are_the_same_removal():
    model, blocks = tiny_model("llama"), _blocks()
    site = find_sites(model)[1]
    plain, muddled = (Removal({site.name: np.array(gone)}) for gone in ([2, 5, 9], [9, 2, 5, 2]))
    assert plain.key == muddled.key
    alone = [Ablator(model, blocks).losses([removal]) for removal in (plain, muddled)]
    assert np.array_equal(*alone)
