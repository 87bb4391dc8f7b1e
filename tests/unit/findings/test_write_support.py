"""Where the core writes, on down projections whose answer is known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from scarprune.findings.write_support import write_support
from scarprune.models.site import Projection, Site

D, M, K = 32, 200, 4  # a support of round(32 / 16) = 2 dimensions


def _measured(down, q2=None):
    model = nn.Module()
    model.down = nn.Linear(M, D, bias=False)
    model.down.weight.data = torch.from_numpy(down).float()
    site = Site("down", 0, M, D, True, (Projection("down", "down"),))
    q2 = np.ones(M) if q2 is None else q2
    (entry,) = write_support(model, [site], {"down": np.arange(K)}, {"down": q2}, seed=0)["sites"]
    return SimpleNamespace(**entry)


def _noise(seed=0):
    return np.random.default_rng(seed).standard_normal((D, M))


def test_the_share_is_that_of_the_largest_entries():
    down = _noise()
    written = np.sort(np.abs(down[:, :K]).sum(1))
    assert _measured(down).share == pytest.approx(written[-2:].sum() / written.sum(), rel=1e-5)


def test_a_core_that_writes_to_two_dimensions_is_beyond_random_cores():
    down = _noise()
    down[:2, :K] = 50.0  # 2 * 50 of 2 * 50 + 30 * 0.8
    found = _measured(down)
    assert found.share == pytest.approx(100 / (100 + 30 * np.sqrt(2 / np.pi)), abs=0.02)
    assert found.share > found.random_high


def test_a_core_like_any_other_is_within_random_cores():
    within = [
        (lambda f: f.random_low <= f.share <= f.random_high)(_measured(_noise(seed))) for seed in range(20)
    ]
    assert sum(within) >= 15  # 95% of 20 are expected; fewer than 15 has a chance of 0.0003


def test_random_cores_come_from_channels_that_have_a_loss_proxy():
    down, q2 = _noise(), np.zeros(M)
    down[1:, 10:] = 0.0  # drawn, their share would be 1
    q2[:10] = 1.0
    assert _measured(down, q2=q2).random_mean < 0.3
    q2[7:] = 0.0
    few = _measured(down, q2=q2)
    assert few.random_mean is None
    assert few.missing == {"random_mean": "fewer than 4 channels outside the core"}


def test_a_core_that_writes_nothing_has_no_share():
    down = _noise()
    down[:, :K] = 0.0
    assert _measured(down).share is None
