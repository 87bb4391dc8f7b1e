"""Trajectories of hand-made cores: births, settling and agreement worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from scarprune.errors import ArgumentError, ArtifactError
from scarprune.findings.trajectory import Snapshot, trajectory
from scarprune.models.site import Site

SITE = Site("mlp", 0, 20, 8, True)


def made(name, core, step=None, lp=None, site=SITE):
    values = np.arange(1.0, site.width + 1) if lp is None else lp
    values = values.copy()
    values[core] = 100.0
    power = np.zeros(site.width)
    power[[0, 1]] = 5.0
    return Snapshot(name, step, None, [site], {"mlp": values}, {"mlp": power}, {"mlp": np.array(core)})


def test_births_and_settling_by_hand():
    # Channel 3 is there from the start but absent once; channel 7 comes with the second checkpoint and stays.
    found = trajectory([made("a", [3, 5], 10), made("b", [5, 7], 20), made("c", [3, 7], 40)])

    (site,) = found["births"]["sites"]
    assert site == {"name": "mlp", "core": [3, 7], "first_step": [10, 20], "settled_step": [40, 20]}
    assert found["births"]["counts"] == [
        {"step": 10, "born": 1},
        {"step": 20, "born": 1},
        {"step": 40, "born": 0},
    ]


def test_agreement_with_the_final_checkpoint_and_with_activation():
    first, last = made("a", [0, 5], 1), made("b", [0, 1], 2)
    start, end = trajectory([first, last])["checkpoints"]

    assert start["jaccard_with_final"]["median"] == pytest.approx(1 / 3)
    assert start["jaccard_activation"]["median"] == pytest.approx(1 / 3)
    assert end["jaccard_with_final"]["median"] == end["jaccard_activation"]["median"] == 1.0
    # Two pairs of 20: both common with probability 1/190, one common with 36/190.
    assert start["jaccard_with_final"]["chance"] == pytest.approx(1 / 190 + 36 / 190 / 3)
    expected = spearmanr(first.lp["mlp"], last.lp["mlp"])[0]
    assert start["spearman_with_final"]["median"] == pytest.approx(expected)
    # 1..20 without 1 and 2 sums to 207; two hundreds lie on top.
    assert end["core_share"]["median"] == pytest.approx(200 / 407)
    assert end["max_over_mean"]["median"] == pytest.approx(100 / (407 / 20))


def test_without_steps_births_count_checkpoints():
    found = trajectory([made("a", [5, 6]), made("b", [3, 7])])
    assert found["births"]["sites"][0]["first_step"] == [1, 1]
    assert "steps" in found["missing"]


def test_other_shapes_are_refused_by_name():
    other = made("wide", [3, 7], site=replace(SITE, width=30))
    with pytest.raises(ArtifactError, match=r"wide and last .* 30 channels and 1 sites of 20"):
        trajectory([other, made("last", [3, 7])])


def test_steps_out_of_order_and_no_checkpoints_are_refused():
    with pytest.raises(ArgumentError, match="order of training"):
        trajectory([made("a", [3, 7], 9), made("b", [3, 7], 1)])
    with pytest.raises(ArgumentError, match="at least one"):
        trajectory([])


def test_a_site_without_loss_is_null_with_the_reason():
    empty = made("a", [0, 1], 1)
    empty.lp["mlp"][:] = 0.0
    start = trajectory([empty, made("b", [3, 7], 2)])["checkpoints"][0]
    assert start["core_share"]["median"] is None
    assert start["max_over_mean"]["median"] is None
    assert start["spearman_with_final"]["median"] is None
    assert set(start["missing"]) == {"core_share", "max_over_mean", "spearman_with_final"}
