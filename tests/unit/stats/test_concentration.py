import numpy as np
import pytest

from scarprune.stats.concentration import effective_number, gini, share, top_share


def test_share_of_chosen_channels():
    assert share(np.array([1.0, 2.0, 5.0]), np.array([0, 2])) == 0.75


def test_top_share_of_the_largest():
    assert top_share(np.array([1.0, 5.0, 2.0]), 1) == 0.625
    assert top_share(np.array([1.0, 5.0, 2.0]), 9) == 1.0


def test_effective_number_by_hand():
    assert effective_number(np.full(7, 3.0)) == pytest.approx(7)
    assert effective_number(np.array([0.0, 4.0, 0.0])) == 1
    assert effective_number(np.array([1.0, 3.0])) == pytest.approx(1.6)  # 16 / 10
    assert effective_number(np.array([1e-200, 3e-200])) == pytest.approx(1.6)


def test_gini_is_the_mean_difference_over_twice_the_mean():
    values = np.random.default_rng(0).lognormal(0, 2, 300)
    expected = np.abs(values[:, None] - values[None]).mean() / (2 * values.mean())
    assert gini(values) == pytest.approx(expected, rel=1e-12)
    assert gini(np.full(5, 2.0)) == pytest.approx(0)
    assert gini(np.array([0, 0, 0, 1.0])) == pytest.approx(0.75)


def test_a_site_without_loss_has_nothing_to_share():
    zero = np.zeros(4)
    assert share(zero, np.array([1])) is None
    assert top_share(zero, 2) is None
    assert effective_number(zero) is None
    assert gini(zero) is None
