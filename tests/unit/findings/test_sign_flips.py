"""Synthetic q with known answers, taken to unit sums here and judged by the code."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from scarprune.findings.sign_flips import auc, flip_p, log_ratio, pooled_auc, signs, statistic

UNITS, TOKENS = 32, 200


def sums(q, rows, cols):
    cross = np.einsum("utr,utk->urk", q[:, :, rows], q[:, :, cols])
    first = q[:, :, rows].sum(1), q[:, :, cols].sum(1)
    second = (q[:, :, rows] ** 2).sum(1), (q[:, :, cols] ** 2).sum(1)
    return cross, first, second, np.full(len(q), float(q.shape[1]))


def synthetic(planted, seed=0):
    """10 core channels, 20 of a halo, 20 others; heavy magnitudes of tokens common to all of them."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((UNITS, TOKENS, 50))
    if planted:
        noise[:, :, 10:30] += 0.7 * noise[:, :, rng.integers(0, 10, 20)]
    return noise * rng.lognormal(0, 1.2, (UNITS, TOKENS, 1))


CORE, HALO, REST = np.arange(10), np.arange(20), np.arange(20, 40)


def judged(planted, factor=1.0, seed=0):
    q = factor * synthetic(planted, seed)
    return statistic(*sums(q, np.arange(10, 50), CORE), signs(200, UNITS, 0))


def test_raw_is_the_mean_red_of_plain_correlations():
    q = synthetic(True)
    r = np.corrcoef(q.reshape(-1, 50).T)[10:, :10].clip(0, 0.9999)
    assert judged(True).raw == pytest.approx((-0.5 * np.log(1 - r**2)).mean(1), rel=1e-4)


def test_planted_copies_are_found():
    found = judged(True)
    assert flip_p(found, HALO) < 0.01
    assert auc(found.excess[HALO], found.excess[REST]) > 0.95


def test_shared_magnitudes_alone_stay_at_chance():
    ps = [flip_p(judged(False, seed=seed), HALO) for seed in range(8)]
    assert sum(p < 0.05 for p in ps) <= 2
    found = judged(False)
    assert abs(np.median(found.excess)) < 0.2 * np.median(found.raw)


@pytest.mark.parametrize("factor", [1e-6, 1000])
def test_the_scale_of_the_loss_changes_nothing(factor):
    assert judged(True, factor).excess == pytest.approx(judged(True).excess, rel=1e-4, abs=1e-7)


def test_a_constant_channel_has_no_correlation():
    q = synthetic(True)
    q[:, :, 15] = 3.0
    found = statistic(*sums(q, np.arange(10, 50), CORE), signs(20, UNITS, 0))
    assert found.raw[5] == 0
    assert np.isfinite(found.null).all()


def test_auc_is_mann_whitney_over_pairs():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, 30), rng.integers(1, 6, 20)
    assert auc(a, b) == pytest.approx(mannwhitneyu(a, b).statistic / 600)


def test_no_ratio_of_a_median_that_is_not_positive():
    assert log_ratio(np.array([-1.0, 1, -2]), np.array([1.0])) is None
    assert log_ratio(np.array([4.0]), np.array([2.0])) == pytest.approx(np.log(2))


def test_sites_of_perfect_separation_are_pooled_as_half_a_pair_away():
    found = pooled_auc([(1.0, 5, 10), (0.8, 20, 20), (None, 0, 3)])
    assert found.value == pytest.approx(1 / (1 + (0.01 / 0.99 * 0.2 / 0.8) ** 0.5))
    assert pooled_auc([(0.0, 5, 10)]).value == pytest.approx(0.01)
    assert pooled_auc([(None, 0, 3)]).value is None
