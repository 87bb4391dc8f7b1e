"""Gram matrices against products of what the whole model's own forward pass shows."""

import numpy as np
import pytest
import torch

from scarprune.profile.gram import Gram, grams
from scarprune.profile.walk import Walk
from scarprune.text.blocks import Blocks
from support.tiny_models import tiny_model

LENGTHS = (24, 24, 16, 24, 24)


def blocks() -> Blocks:
    ids = np.random.default_rng(0).integers(3, 90, (len(LENGTHS), 24))
    return Blocks(ids=ids, lengths=np.array(LENGTHS), bytes=None, protocol="tokens", source="random")


@torch.no_grad()
def seen(model: torch.nn.Module, names: list[str], text: Blocks) -> dict[str, np.ndarray]:
    """Inputs of the modules ``names`` for every token, float64 [tokens, size], each block by itself."""
    parts: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    handles = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda module, args, name=name: parts[name].append(args[0].flatten(0, -2))
        )
        for name in names
    ]
    for row, length in zip(text.ids, text.lengths, strict=True):
        model(input_ids=torch.from_numpy(row[None, :length]), use_cache=False)
    for handle in handles:
        handle.remove()
    return {name: torch.cat(found).double().numpy() for name, found in parts.items()}


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt_neox", "gpt2"])
def test_the_sums_are_those_of_every_token_of_the_model_itself(family: str) -> None:
    model = tiny_model(family)
    walk = Walk(model, blocks(), batch=2)
    names = [p.module for layer in walk.layers for p in (layer.site.down, layer.site.readers[0])]
    expected = seen(model, names, blocks())
    found = list(grams(walk, inputs=True))
    assert [site.name for site, _, _ in found] == [layer.site.name for layer in walk.layers]
    for site, of_u, of_x in found:
        assert of_x is not None
        for gram, module in ((of_u, site.down.module), (of_x, site.readers[0].module)):
            values = expected[module]
            assert gram.count == len(values) == sum(LENGTHS)
            np.testing.assert_allclose(gram.outer, values.T @ values, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(gram.mean(), values.mean(axis=0), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(
                gram.covariance(),
                np.cov(values.T, bias=True),
                rtol=1e-3,
                atol=1e-4 * values.var(axis=0).max(),
            )


def test_sixteen_bit_products_are_not_rounded_to_sixteen_bits() -> None:
    u = torch.full((300, 2), 1.0, dtype=torch.bfloat16)  # bfloat16 cannot hold 300 ones: it goes 256, 258
    gram = Gram(2, u.device)
    gram.add(u)
    gram.add(u)
    assert gram.outer.tolist() == [[600, 600], [600, 600]]
    assert gram.sum.tolist() == [600, 600]
    assert gram.count == 600
