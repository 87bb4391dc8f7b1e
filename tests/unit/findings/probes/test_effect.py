"""D and the first-order term against float64 brute force on a tiny model."""

import numpy as np
import torch

from scarprune.evaluate.ablate import Ablator
from scarprune.evaluate.removal import Removal
from scarprune.findings.probes.effect import clusters_of, effects
from scarprune.findings.probes.first_order import block_gains, gain_of
from scarprune.text.blocks import Blocks
from support.tiny_models import tiny_model


def _blocks(rows=3, tokens=12, documents=None):
    ids = np.random.default_rng(0).integers(3, 90, (rows, tokens))
    return Blocks(
        ids=ids,
        lengths=np.full(rows, tokens),
        bytes=None,
        protocol="tokens",
        source="test",
        documents=documents,
    )


def _block_loss(model, site, row, scale):
    """Loss of one block in float64, with u multiplied by ``scale`` [m] at ``site``."""
    handle = model.get_submodule(site).register_forward_pre_hook(lambda m, a: (a[0] * scale, *a[1:]))
    try:
        logits = model(row[None]).logits[0, :-1]
    finally:
        handle.remove()
    return torch.nn.functional.cross_entropy(logits, row[1:], reduction="sum")


def test_gains_are_the_derivative_by_a_factor_on_the_channel():
    # d/dc L(c * u_i) at c = 1 is the sum over positions of u_i * dL/du_i.
    model, blocks = tiny_model("llama").double(), _blocks()
    gains = block_gains(model, blocks)
    for name, found in gains.items():
        for b, ids in enumerate(blocks.ids):
            scale = torch.ones(found.shape[1], dtype=torch.float64, requires_grad=True)
            loss = _block_loss(model, name, torch.from_numpy(ids), scale)
            (expected,) = torch.autograd.grad(loss, scale)
            np.testing.assert_allclose(found[b], expected.numpy(), rtol=2e-5, atol=1e-8)


def test_d_is_the_increase_without_its_first_order_term():
    model, blocks = tiny_model("llama").double(), _blocks()
    name, channel = "model.layers.0.mlp.down_proj", 5
    removal = Removal({name: np.array([channel])})
    ablator = Ablator(model, blocks)
    linear = gain_of(removal, block_gains(model, blocks))[None]
    found = effects(ablator.losses([removal]), ablator.dense(), linear, blocks)

    second = []
    for ids in blocks.ids:
        row = torch.from_numpy(ids)
        scale = torch.ones(48, dtype=torch.float64, requires_grad=True)
        dense = _block_loss(model, name, row, scale)
        (slope,) = torch.autograd.grad(dense, scale)
        without = torch.ones(48, dtype=torch.float64)
        without[channel] = 0
        second.append((_block_loss(model, name, row, without) - dense + slope[channel]).item())
    np.testing.assert_allclose(found.d, [sum(second) / 33], rtol=1e-3)
    np.testing.assert_allclose(found.dl + -found.first_order, found.d, rtol=1e-9)
    expected_error = np.std(second, ddof=1) * np.sqrt(3) / 33  # of a sum of three, per target
    np.testing.assert_allclose(found.error, [expected_error], rtol=1e-3)


def test_blocks_of_one_document_go_together():
    blocks = _blocks(4, documents=np.array([[0, 0], [0, 0], [1, 1], [1, 2]]))
    assert clusters_of(blocks).tolist() == [0, 0, 1, 1]
    losses, dense = np.array([[1.0, 1.0, 3.0, 3.0]]), np.zeros(4)
    found = effects(losses, dense, np.zeros((1, 4)), blocks)
    # Two clusters with sums of deviations -2 and 2: sqrt(2/1 * (4 + 4)) over 44 targets.
    np.testing.assert_allclose(found.error, [4 / 44])


def test_blocks_of_a_single_document_are_their_own_clusters():
    assert clusters_of(_blocks(3, documents=np.zeros((3, 2), dtype=int))).tolist() == [0, 1, 2]
