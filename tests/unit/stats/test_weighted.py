"""Weighted ranks against the population they stand for, by SciPy."""

import numpy as np
import pytest
from scipy import stats

from scarprune.stats.weighted import spearman_interval, weighted_spearman, win_rate


def test_whole_weights_are_repetitions():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, 30).astype(float), rng.standard_normal(30)
    weights = rng.integers(1, 5, 30)
    expected = stats.spearmanr(np.repeat(a, weights), np.repeat(b, weights)).statistic
    assert weighted_spearman(a, b, weights.astype(float)) == pytest.approx(expected, rel=1e-12)


def test_a_constant_has_no_rank_correlation():
    assert weighted_spearman(np.ones(5), np.arange(5.0), np.ones(5)) is None


def test_the_interval_covers_what_it_should():
    rng = np.random.default_rng(1)
    truth = 6 / np.pi * np.arcsin(0.6 / 2)  # Spearman of a Gaussian pair with correlation 0.6
    covered = 0
    for seed in range(60):
        x = rng.standard_normal(80)
        y = 0.6 * x + 0.8 * rng.standard_normal(80)
        interval = spearman_interval(x, y, np.ones(80), np.zeros(80), seed)
        assert interval.low is not None
        assert interval.high is not None
        covered += interval.low <= truth <= interval.high
    assert covered >= 0.88 * 60


def test_wins_have_wilsons_interval():
    found = win_rate(8, 10)
    z, p, n = 1.959964, 0.8, 10
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    np.testing.assert_allclose([found.low, found.high], [centre - reach, centre + reach], rtol=1e-5)
    assert win_rate(0, 0).value is None
